"""Bank of hand-written fragments for generate_pool.py (support desk of the fictional shop "Tarn & Tussock").

Notation inside a fragment
    <a|b|c>   one of the alternatives
    {slot}    filled by the generator (see generate_pool.Filler)
    [ ... ]   kept only when the order number is to stand inside the core (holds {ref} or {o})
    @cat,cat  at the start of a line: only for products of these categories
{myorder} becomes "my order" or, when the number stands inside the core, "order TT-48213" and the like.
A backslash at the end of a line joins it with the next one (long fragments).
Number agreement follows the product: {is} {was} {has} {doesnt} {isnt} {it} {them} {this} {s}.
"""


def _lines(block):
    """Split a block into its non-empty lines."""
    return [line.strip() for line in block.strip().splitlines() if line.strip()]


# (category, kind, names); kind s = singular, p = a pair of ..., n = plural without "pair"
PRODUCTS = [
    (cat, kind, name.strip())
    for cat, kind, names in [
        (
            "tent",
            "s",
            "two-man tent; tunnel tent; dome tent; family tent; ultralight tarp; bivvy bag; one-person tent",
        ),
        (
            "bag",
            "s",
            "down sleeping bag; three-season sleeping bag; kids' sleeping bag; winter sleeping bag; quilt",
        ),
        ("mat", "s", "inflatable sleeping mat; self-inflating mat; air bed; camping pillow"),
        (
            "boots",
            "p",
            "walking boots; winter boots; approach shoes; trail running shoes; hill walking shoes; leather boots",
        ),
        (
            "wear",
            "s",
            "rain jacket; down jacket; softshell; fleece; zip-neck merino top; hardshell jacket; "
            "insulated vest; "
            "windproof smock; kids' waterproof; cagoule",
        ),
        ("wear", "p", "waterproof trousers; walking trousers; zip-off trousers; lined winter trousers"),
        ("hand", "p", "winter mittens; liner gloves; gaiters; wool socks; ski gloves"),
        (
            "sack",
            "s",
            "trekking rucksack; daypack; child carrier; duffel bag; climbing pack; 65-litre rucksack",
        ),
        ("stove", "s", "gas stove; multi-fuel stove; spirit burner; two-ring camping stove"),
        (
            "cook",
            "s",
            "titanium pan set; insulated flask; steel water bottle; camping kettle; thermos mug; cool box",
        ),
        (
            "hard",
            "s",
            "locking carabiner; quickdraw set; belay device; climbing harness; via ferrata set; "
            "climbing helmet; half rope; ice axe",
        ),
        ("hard", "p", "crampons"),
        (
            "elec",
            "s",
            "head torch; camping lantern; power bank; solar charger; handheld GPS; altimeter watch",
        ),
        ("poles", "p", "trekking poles; carbon poles; folding poles; snowshoe poles"),
        ("misc", "s", "water filter; folding chair; camping table; hammock; compass"),
        ("misc", "p", "binoculars; snowshoes"),
        ("paper", "s", "waterproof map; hut guidebook; map case"),
        ("paper", "n", "trail maps"),
    ]
    for name in names.split(";")
]

GROUPS = {
    "size": ("boots", "wear", "hand"),
    "cloth": ("wear", "hand", "bag", "sack", "tent"),
    "gear": ("tent", "bag", "mat", "boots", "wear", "hand", "sack", "cook", "elec", "poles", "misc"),
    "coloured": ("boots", "wear", "hand", "bag", "sack", "tent", "cook"),
}

# broken out of the box / at first use (harmless)
FAULTS_NEW = {
    "tent": "one of the poles is split along its length; there is a tear in the flysheet as long as my hand; "
    "the inner door zip has no slider on it; two of the guy line loops are ripped off; "
    "the groundsheet has a hole in it",
    "bag": "the zip is jammed solid and won't move; down is leaking out of a seam at the foot; "
    "the hood drawcord is torn off; "
    "there is a rip along the baffle",
    "mat": "it goes flat within ten minutes; the valve is cracked; there's a puncture near the edge; "
    "it won't hold any air at all",
    "boots": "the left sole is coming unglued; one of the lace hooks is snapped off; "
    "there's a cut right across the toe; "
    "an eyelet has been torn out; the heel seam is open",
    "wear": "the main zip is broken; one seam is wide open; there's a hole under the arm; the cuff is ripped; "
    "there is a long oil stain and a tear at the back",
    "hand": "the seam is open at the thumb side; one has a hole in it; the stitching has unravelled; "
    "the strap is torn off one",
    "sack": "a shoulder strap has come off its stitching; the hip belt buckle is cracked in two; "
    "the lid zip is split; "
    "there's a slit in the bottom; the frame pokes through the fabric",
    "stove": "the pot supports are bent flat; the igniter gives no spark; one of the legs is snapped off; "
    "the control knob was in two bits",
    "cook": "it has a great dent and the lid won't close; the handle is snapped off; "
    "the seal is split and it drips; the lid is cracked",
    "elec": "it won't switch on; the battery cover is broken; the charging socket is loose and nothing charges; "
    "the glass is cracked; "
    "it flickers and dies after a minute",
    "poles": "one tip is broken off; the lower section is bent; a locking lever is cracked; "
    "one grip is loose and turns round",
    "misc": "one part is cracked through; a bolt has sheared off; {it} came bent out of shape; "
    "{it} fell to bits when I first used {them}",
    "paper": "half the pages are soaked; the cover is ripped right across; "
    "water got in and everything is stuck together",
    "hard": "",
}

# failed after a time of use (harmless)
FAULTS_USED = {
    "tent": "the seam tape is peeling off everywhere; the pole elastic has gone; "
    "the floor coating has turned sticky and leaks; "
    "a zip has stopped closing; a pole section has split",
    "bag": "the zip has given up; the down has clumped and a seam has burst; the lining has split; "
    "the zip slider came off in my hand",
    "mat": "it has started losing air overnight; a big bubble has formed between the chambers; "
    "the valve has failed; the seam came apart",
    "boots": "the sole has come away at the toe; the membrane lets water in; the stitching has gone at the side; "
    "a hook has pulled out; "
    "the heel has split",
    "wear": "the lining is flaking off; the zip has packed in; {it} let{s} the rain straight through; "
    "a seam has opened; the coating is peeling",
    "hand": "the seams have come undone; the lining has come away; a buckle has gone; they let water in now",
    "sack": "a strap has torn out of the seam; the frame stay has snapped; the hip belt buckle has broken; "
    "the main zip has split",
    "stove": "the igniter has stopped sparking; the pump has worn out; a pan support has broken off; "
    "the flame has become very weak",
    "cook": "it no longer keeps anything hot; the lid seal has perished; the handle rivets have gone; "
    "the inside coating is coming off",
    "elec": "it no longer holds its charge; the switch has died; it goes off on its own; the display has faded; "
    "the strap clip has broken",
    "poles": "the lock slips every time; one section is stuck for good; the cork grip has come loose; "
    "the lever has snapped",
    "misc": "the joint has given way; {it} {has} stopped working; a seam has failed; the catch has broken",
    "paper": "",
    "hard": "",
}

# dangerous faults: urgency high by rule
FAULTS_DANGER = {
    "stove": "gas hisses out round the valve even when it is turned off; it leaks gas and the kitchen smells of it; "
    "a flame came out of the side of the hose; fuel is dripping on to the hot burner",
    "hard": "there is a hairline crack in the metal; the lock opens under load and somebody could fall; "
    "the stitching that holds a climber is coming undone; I can see a crack right where the weight hangs",
    "elec": "the battery swells and gets so hot that it scorched the table; it smoked and gave me a shock; "
    "the battery is bulging and smells of burning with the children's beds next door",
}

COLOURS = [
    "black",
    "red",
    "dark green",
    "navy",
    "orange",
    "grey",
    "moss",
    "teal",
    "sand",
    "blue",
    "yellow",
    "purple",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"]
MONTHS = ["January", "March", "April", "May", "June", "August", "September", "October", "November"]
SPANS = [
    "two weeks",
    "three weeks",
    "ten days",
    "nearly a month",
    "12 days",
    "five weeks",
    "a fortnight",
    "nine days",
]
USES = [
    "four months",
    "half a year",
    "a year and a half",
    "eight months",
    "two seasons",
    "one winter",
    "fourteen months",
    "a dozen trips",
    "a year",
    "10 months",
    "twenty-odd nights",
]
NAMES = [
    "Maud",
    "Gareth P.",
    "Ines",
    "Tobias",
    "Mrs Harlow",
    "J. Penrose",
    "Oskar",
    "Priya",
    "Callum",
    "Beth",
    "Mr Addy",
    "Rosalind",
    "Kenji",
    "Fatou",
    "Dai",
    "Lotte",
    "Amir",
    "Wilf",
    "Sunniva",
    "Peg",
    "Marek",
    "Noor",
    "Hamish",
    "Ruth T.",
    "Elodie",
    "Stan",
    "Yusuf",
    "Greta",
    "Colm",
    "Ottilie",
]
STREETS = [
    "Mill Lane",
    "Quarry Road",
    "Chapel Hill",
    "Station Terrace",
    "Fern Close",
    "Harbour Street",
    "Upper Green",
    "Larch Avenue",
    "Weir Cottages",
    "Beacon View",
]
PEOPLE = [
    "my husband",
    "my wife",
    "my son",
    "my daughter",
    "my mum",
    "my dad",
    "my brother",
    "my flatmate",
    "my boss",
    "my niece",
    "my climbing partner",
    "a friend",
]
PLACES = ["porch", "doorstep", "garden shed", "bin store", "front step", "hallway", "safe place"]
CARRIERS = ["the courier", "the carrier", "the delivery firm", "the parcel service", "your courier"]

CORES, NEAR, HIGH_CORES, LOW_CORES = {}, {}, {}, {}

# ---------------------------------------------------------------- track_order
CORES["track_order"] = _lines("""
ETA on my {item} please?[ {ref}]
Has my {item} shipped?[ {ref}]
Got a tracking code for {myorder}?
When will you send {myorder}?
Which day does {myorder} come?
{myorder}, where is it today?
How's my {item} doing, on the road yet?
Delivery this week or next[ for {ref}]?
Shipped yet? {item}[, {ref}].
Where {is} my {item}[ from {ref}] at the moment?
Any news on when {myorder} <gets here|will arrive|turns up>?
I ordered {an} on {day}[, {ref},] and would like to know <roughly when to expect it|which day it will come|how \
far it has got>.
Can you <send|give|mail> me a tracking link for {myorder}? I <can't find one anywhere|never got one in the \
mail|deleted the email by mistake>.
Has {myorder} <left your warehouse|gone out|been dispatched> yet?
<Checking|Wanted to check|Can you see> where {myorder} has got to. I placed it on {day}.
The status of {myorder} has said "packed" since this morning. <What is the next step|Does that mean it goes out \
today|When does it move on>?
<What day|Which day> will the courier bring the {item}[ ({ref})]? I'd like to <be in|tell the neighbours|arrange \
for someone to be home>.
I bought {an} and {an2} from you[ under {ref}]. Are they coming <together|in one box|in the same parcel> and when?
Tracking pls[ for {ref}].
My account only says "in process"[ for {ref}]. Could you <tell me|let me know> where things stand with the {item}?
Do I need to sign for {myorder}, and can you say <morning or afternoon|what time of day it comes|which delivery \
slot I've got>?
The confirmation[ for {ref}] promised delivery within <five|six|seven> working days, today is day <two|three>. \
<Is it on the road yet|Is all on schedule|Still on track>?
<How long|How many days> does the post from you usually take? I paid for {an} on {day}[ ({ref})] and <wonder \
where it is|would like to hear how far along it is>.
I had a text that the {item} {is} with {carrier} now. <Where do I see the route|How can I follow it|What's the \
link to follow it>?
The link in your mail[ about {ref}] opens a blank page. Where is my parcel <right now|just now|today>?
Could somebody tell me the expected delivery date for {myorder}? {person} ordered it for me and <I can't see the \
account|has lost the mail|doesn't do email>.
Hoping to hear when the {item} will get here[, it's {ref}]. Bought on {day}, and so far only the receipt \
<came|arrived> by mail.
When {is} my {item} coming?
Which carrier has {myorder} and <how do I follow it|what's the parcel number>?
I can see you took the payment, so I assume the {item} {is} on the way. <Whereabouts|Where exactly>?[ It is {ref}.]
Is {myorder} <still in the warehouse|on a van|out for delivery> or what?
My screen shows the parcel at a depot in another county[ ({ref})]. Is that the normal route, and when <will it \
reach me|is it due here>?
Please <advise|confirm|inform me of> the estimated arrival of {myorder}, goods: {num} x {item}.
So I got the mail that says "good news, your {item} {is} being prepared". Lovely, but when <do I actually get \
it|does the bell ring>?[ {ref}.]
<Tell me|Let me know> when {myorder} is meant to reach me, the website <keeps logging me out|won't let me \
in|doesn't show a date>.
Our scout group ordered {num} {nitems}[, {ref}]. What date have you got down for the delivery?
First time I shop with you. I ordered {an} <last night|yesterday|on {day}>. How do I see where {it} {is}?[ Number \
is {o}.]
<ETA|Delivery date|Delivery day> for {myorder} please?
Did the {item} go out with the <{day}|morning|Monday> post?[ {ref}.]
Could you look up {myorder} and tell me whether it has been handed to {carrier}?
The parcel is coming to the pickup shop I chose[ ({ref})]. Will I get a message when <it's there|I can fetch it>, \
and has it been sent?
I am out most days so I want to know when {carrier} is coming with my {item}[, {ref}].
Hiya, whereabouts is {myorder}, ordered it on {day} with standard post?
""")
NEAR["track_order"] = _lines("""
I know it isn't late yet, the mail said <up to eight days|by the end of next week>, but could you tell me where \
{myorder} is now?
No complaint and no refund wanted, I only want to <see|know> where the {item} {is} on {its} way to me[ ({ref})].
I sent a pair back to you last month and that is all settled. This is about the new {item} I ordered on {day}[, \
{ref}]: when <{is} {it} due|will {it} be here>?
I am not going to cancel anything, I just want to know if {myorder} has been dispatched.
My address is right in the order, nothing to change there. I only need the tracking link for {myorder}.
You kindly sent a replacement for my broken {item} on {day}[ ({ref})]. Which day should the new one be here?
My neighbour's parcel went missing last month so I'm a bit nervous: where is {myorder} today? It's due <on \
{day}|next week>.
Before I ask a silly question: the delivery estimate is still <four|five> days off, is {myorder} moving at all or \
does tracking only start later?
I was <worried it got lost|afraid that it had been stolen> but then saw the estimate is not until next week. Can \
you tell me where the {item} {is}[, {ref}]?
My exchange parcel was posted by you on {day} I'm told. Got a tracking number for that parcel?[ It's under {ref}.]
Nothing is late, only my tracking page shows two parcels[ for {ref}]. When does each of them arrive?
Half of my order came today with a slip that the {item} {is} following in a second parcel, as planned. When will \
that one come?[ {ref}.]
Last time I had to claim a refund because nothing turned up. This time all looks fine, I'd just like to know \
where {myorder} is.
You changed my delivery address as I asked, thanks. When will {myorder} now get to the new place?
The damaged one is sorted, thank you. Has the new {item} been shipped yet and what's the tracking?[ See {ref}.]
I was asked if I wanted to cancel since the {item} {was} on back order. No, keep it, but what date do you expect \
to ship {myorder}?
The store said it would be in stock on {day} and then be sent on to me. Has {myorder} been sent on?
""")
# ---------------------------------------------------------------- late_delivery
CORES["late_delivery"] = _lines("""
{item} {span} late[, {ref}]. Why?
Still no {item}, was due {date}[. {ref}].
{myorder} was due on {date}. Where is it?
Promised {day}, nothing came[. {ref}].
My {item} {is} {span} overdue[, {ref}].
Next day delivery, they said. {span} ago.[ {ref}]
Why isn't {myorder} here yet, it was promised for {date}?
Delivery date's long gone, no {item}[, {ref}].
My {item} should have been here last {day} and still nothing[, {ref}].
{myorder} was promised for {day}. That was {span} ago. <Where is it|What's going on|What is keeping it>?
Still waiting for {myorder}, which is now {span} overdue. <Please chase it up|Can you find out what's holding \
it|What is happening>?
You said three to five days. It has been {span}[ since I placed {ref}] and <no sign of|I'm still without> the {item}.
It is {span} since I ordered {an}[ ({ref})] and the date you gave me has come and gone. When will I finally <get \
it|have it>?
The delivery date for {myorder} has been pushed back <twice|three times> now. Please tell me <what the hold-up \
is|when it really comes>.
{carrier} says "delayed" every day since {date}. I still want the {item}, so please <get it moving|push them|find \
out what's up>.[ {ref}]
Nothing has come. Delivery was due <{day} last week|on {date}>[ for {ref}]. Could you look into it?
<How much longer|How many more days> am I to wait for my {item}[ ({ref})]? {it} {was} due {span} ago.
I paid extra for next day delivery on {myorder} and it's now day <six|five|eight>. Please <get it to me|send it \
on its way|make it happen>.
Parcel overdue by {span}[, {ref}]. Please sort.
Your mail said {date} at the latest for the {item}. That's past. <Any idea when it will come|What's the new \
date>?[ {ref}]
Is {myorder} ever going to come? The promised week ended <on {day}|{span} ago>.
I have stayed at home <two|three> days running for a parcel that never shows[, {ref}]. It was meant to come on \
{date}. When is it really coming?
The tracking has hung at the same depot since {date} though it was due the day after. Could you give {carrier} a \
nudge about my {item}[, {ref}]?
The {item} {was} to arrive with the birthday and the birthday was {span} ago[ ({ref})]. Please see that {it} \
get{s} here.
I keep being told "one more day"[ about {ref}]. That was {span} back. Kindly find out where the {item} {is} stuck.
Late again. {myorder}, due {date}, not here. Explain please.
The other half of my order came on time, the {item} {was} promised for the same week and {is} still not here \
{span} later[ ({ref})].
Our club's {num} {nitems} were due at the start of the month[ ({ref})]. We are well past that. When can we count \
on them?
Your website promised <48 hours|express delivery|two working days>. {span} on I'm looking at an empty doormat[, \
{ref}]. When will the {item} come?
I think my {item} {is} stuck somewhere, {it} should have come by {date}[. {ref}]. Can you unstick {them}?
Expected {date}. Today no parcel, no mail, no call.[ It's {ref}.] What is happening with my {item}?
Hello, my order with {an} is late for {span} already[, {ref}]. Please check with transport.
The {item} {was} due last week and {hasnt} come.[ {ref}.]
My delivery window passed {span} ago and nobody tells me anything about {myorder}.
Sorry to be a nuisance but {myorder} is well past its date. Could you <ask|chase|ring> {carrier}?
The driver was supposed to come <last {day}|on {date}> with my {item} and didn't, and no one since[. {ref}]. \
Please arrange that {it} come{s}.
Waiting since {month} for {an} that was "ready to ship"[ ({ref})]. The promised date is long gone. When now?
Day <14|16|19|21> and still no {item}. Promised was day 5.[ {ref}]
The strike is over since {day} they say, yet {myorder}, due {span} ago, is still not with me. What now?
Could you please find out why {myorder} is taking so much longer than the <week|five days|ten days> you quoted?
""")
NEAR["late_delivery"] = _lines("""
I don't want to cancel and I don't want my money back, I want the {item} that {was} due {span} ago[, {ref}].
It isn't lost, the tracking still moves about, but {myorder} should have been here on {date}. When will it \
<arrive|come>?
Please don't offer me a refund again. The {item}[ on {ref}] {was} promised for last {day} and I still want \
{them}, so when?
Tracking link works fine, thanks, it just tells me every day that my {item} {is} delayed. Due date was {date}[, \
{ref}]. What is the matter?
The exchange went back to you fine and the new size was promised by {date}. It has not come[ ({ref})]. Where does \
it hang?
I changed the address in good time and you confirmed it. Since then {myorder} is {span} overdue. Did that slow it \
down? I'd like it delivered.
The warranty replacement was to reach me by last {day} and hasn't[, {ref}]. Please find out when it gets here.
Everyone asks me if it was stolen. No, {carrier} says it sits in their depot, {span} past the promised date. \
Please get {myorder} moving.
I was told I could cancel if it took too long. I'd rather have my {item}, only tell me when: {it} {was} due on \
{date}[, {ref}].
When is {myorder} coming? The tracking says {date}, and that was {span} ago.
I'm not asking for the postage back, just for the {item} I paid express for; the express day was {date}[, {ref}].
The missing box of my two-box order isn't missing, it's just {span} late according to your own date. When do I \
get it?[ {ref}]
You refunded me the delivery fee for being late, that was kind, but the {item} {itself} still {hasnt} come and \
{is} {span} over the date[ ({ref})].
My other parcel arrived dented, never mind that. What bothers me is that {myorder} is {span} past its date. Could \
you chase it?
I asked two weeks ago where it was and you said "by {day}". That {day} is over and I am still waiting for {myorder}.
The pickup shop says nothing has been brought in for me, {carrier} says still in transit, and the date on the \
mail was {date}. Please hurry {myorder} along.
I would happily take another colour but what I really want is the delayed {item} to get here, {span} late[, {ref}].
""")
# ---------------------------------------------------------------- lost_parcel
CORES["lost_parcel"] = _lines("""
Delivered, you say? Not here[. {ref}].
Someone stole {myorder} off our doorstep.
{carrier} lost {myorder}.
Marked delivered, nothing in the {place}[. {ref}].
"Delivered" at noon. Nobody came[. {ref}].
My {item} got stolen from the {place}[, {ref}].
{myorder} shows delivered, I don't have it.
Tracking says delivered <on {day}|yesterday|at 14:10>, but there is no parcel here[, {ref}].
{myorder} is marked as delivered. I was home all day and nobody came.
{carrier} admits that they have lost my {item}[ ({ref})]. <What happens next|What do we do now|Please send another>.
The driver's photo of {myorder} shows a door that isn't mine.
"Left in {place}" it says. There's nothing in the {place}[. {ref}]. I've asked all the neighbours.
My parcel was <stolen|taken|nicked> from the {place} before I got home[, {ref}]. What can you do?
Tracking for {myorder} has been dead since {date}, over <six|seven|eight> weeks. I think we must call it lost.
Delivered to "neighbour", says the card, and no neighbour has the {item}[. {ref}]. Please start a search.
According to {carrier} somebody signed for {myorder}. The name on it is nobody we know. Where {is} my {item}?
The doorbell camera shows a man walking off with my box[ ({ref})]. How do we go on from here?
It says handed to resident. I AM the resident and I have no {item}.[ {ref}]
{carrier} wrote that the parcel is untraceable and the search is closed[, {ref}]. Could you ship the {item} again?
My {item} never reached me although your system says completed[ for {ref}]. Please open an enquiry.
No trace of the box. {carrier} told me on the phone it fell off their system <in {month}|on {date}> and won't be \
found[, {ref}].
The parcel is gone. Status delivered, {place} empty.[ {ref}]
They delivered {myorder} to <number 41|the wrong village|a house down the road> and the people there say they \
know nothing. What now?
My flat is on the third floor and {carrier} left the {item} at the street door, where {it} vanished[. {ref}]. \
Please help.
I've had confirmation of a delivery that didn't take place[, {ref}]. Please investigate with {carrier}.
The depot <burned down|was flooded> and {carrier} tells me my parcel[ {o}] was in it. Can you send me the {item} anew?
I got the "your parcel has been delivered, enjoy!" mail. Enjoy what? There is no parcel. {Person} looked \
everywhere too.[ {ref}]
The pickup shop has scanned {myorder} as collected, but not by me. Someone else must have it.
The tracking shows a signature that's a mere squiggle, not mine, and the {item} {is} nowhere in the house[ ({ref})].
Gone without trace: one parcel with {an}[, {ref}]. The last scan is from {month}.
Safe place? Not so safe. The {item} got pinched[. {ref}]. Do I need a police report for you?
Says delivered, isn't here. {myorder}. Help?
Our reception has no record of {myorder}, though the courier claims he handed it over there on {day}. Could you \
take it up with them?
I was on my balcony when the status jumped to delivered. No van anywhere[. {ref}]. Where did they put my {item}?
The lady at {carrier} says their lorry was robbed and my {item} {was} on it[, {ref}]. What are the next steps?
My parcel has disappeared between two depots, {carrier} has officially given it up[ ({ref})].
The empty torn-off label of {myorder} was found in our street, the parcel wasn't. Please advise.
Delivered?? To whom?? Not to me. Need you to find my {item} or send {them} again[, {ref}].
I filled in {carrier}'s form for missing parcels and they told me the sender, so you, must report {myorder} as \
lost. Would you do that?
""")
NEAR["lost_parcel"] = _lines("""
It's not late, it is gone: tracking says delivered on {date} and I have no {item}[, {ref}].
I don't want a refund, I want you to find out who got my parcel. It's shown as delivered[, {ref}].
First it was late, then it was "delivered", only not to us. Where did {myorder} end up?
Yes I have the tracking link, it says "delivered, {place}". The {place} is empty[. {ref}].
Nothing wrong with the contents, I never saw the contents! Signed for by a stranger[, {ref}]. Please look into it.
No item is missing from the box, the whole box is. {carrier} insists it was handed over on {day}[. {ref}].
I had my address changed and you confirmed it, still {carrier} left {myorder} at my old flat on {day} and the new \
tenant says it is not there any more. It's marked delivered.
The replacement for my torn {item} is shown as delivered and is nowhere to be found[ ({ref})]. Can you trace it?
My exchange parcel with the larger size has been swallowed: {carrier} confirmed in writing that they lost it[, \
{ref}]. What will you do?
Six weeks ago I asked you where it was, four weeks ago you said a bit late, now {carrier} says lost for good. \
What happens with {myorder}?
I won't cancel, I'd still love the {item}, but {carrier} says they can't find the parcel any more[, {ref}]. Would \
you send a second one?
The parcel wasn't damaged by the thief at least, he took it whole from our {place}[. {ref}]. How do I report that \
with you?
I'm told to wait a few more days, but what for, it's already "delivered" in their system and not with me[ ({ref})].
Before you ask: no, no wrong address, no delay. The status is delivered, the photo shows someone else's {place}[. \
{ref}].
The warranty repair came back to me, or so they say: marked as left in the {place} on {day}, and there's nothing \
there.[ {ref}]
""")
# ---------------------------------------------------------------- refund_request
CORES["refund_request"] = _lines("""
I want to return the {item} for my money[, {ref}].
You charged me twice[, {ref}]. One back please.
Can I send the {item} back for a refund?[ {ref}]
Don't like the {item}, money back please[. {ref}]
Can I have the price difference back on the {item}?[ {ref}]
Take the {item} back and pay me out please[. {ref}].
Express fee back please, it came by ordinary post[. {ref}].
How do I get a refund on unused {items}?[ {ref}]
I want my money back for the {item}[, {ref}].
Please refund {myorder}, the {item} {is} not for me.
I'd like to return the {item}[ from {ref}] and get <a refund|my money back|the amount back on my card>. How does \
that work?
My card was charged twice for {myorder}. Please pay one of them back.
The {item} I bought {is} now {price} cheaper on your own site[ ({ref})]. Can I have the difference back?
I paid for express[ on {ref}] and it came with ordinary post. Please give me back the express fee.
{this} {item} {isnt} what I had hoped for. Sending {them} back, I want the purchase price returned[, {ref}].
I bought the {item} as a present and {person} already has {oneof}. Can I send {them} back for a refund?[ {ref}]
Changed my mind about the {item}. Unused, tags on. Money back please[, {ref}].
You took {price} from my account, the confirmation[ for {ref}] says {price2}. Please return the rest.
@size The {item} {is} too <tight|big|narrow|small> and I don't want another size, I want the money back[. {ref}]
I paid for gift wrapping and there was none[, {ref}]. Please credit me for that.
The discount code was not applied[ to {ref}] although your mail said it was valid. Would you pay me back the \
difference?
@size Boots or not, I have wide feet and the {item} won't do. What do I need to do to get my {price} back?[ {ref}]
Would you take back the {item}, unopened, and reimburse me?[ Bought with {ref}.]
The {item} {doesnt} suit me at all. Please send a return label, and I expect the full amount back[. {ref}].
Refund please[, {ref}].
I was charged for {num} {nitems} and wanted, ordered and received one[. {ref}]. Kindly refund the overcharge.
I paid customs on top at the door, which your site says is included[ ({ref})]. I'd like that reimbursed.
How do I get my money for the {item}? {it} came yesterday and I regret buying {them}[. {ref}].
I had paid for carrying it up to the flat and they left it at the kerb[, {ref}]. That fee I want back.
You charged me postage though the order was above the free limit[, {ref}]. Can you put that right and pay back \
{price}?
Within the 30 days and in its box: the {item}. I'd like to hand {them} back and be paid out[. {ref}]
I want to withdraw from the purchase of the {item} that I received on {day}[ ({ref})]. Please repay me to the \
same account.
@tent,bag,mat,sack The {item} {is} much heavier than your page says. I'm not keeping {them}. Money back[, {ref}].
Your payment page froze, I pressed again and now {price} went off my account twice[. {ref}]. One back please.
I got the {item} home, tried {them} in the garden and thought no. Could I return {them} and have the {price} \
back?[ {ref}]
Our treasurer asks for repayment of the {num} {nitems} the group did not need after all, all unopened[. {ref}]. \
Would you accept them?
May I get back the cost of the {item}? I've found out that I'm allergic to the material[. {ref}]
I don't want a voucher, I want real money for the returned-unused {item}, {it} {is} still sitting here in the \
box[ ({ref})]. Do you agree?
Dear shop, {item} not good for me. I want give back and receive money[. {ref}].
The {item} went on sale for half price two days after I bought {them}. I'd like the difference[, {ref}].
Bought {an}, paid for the installation evening in the store, the evening was called off. Please refund that \
part[. {ref}].
""")
NEAR["refund_request"] = _lines("""
@gear The {item} came today and {fault}. I don't want another one, I want my money back[. {ref}].
@gear {fault}. No replacement, no repair, please just refund the {item}[, {ref}].
@gear After {use} {failed}. You'd repair {them} under guarantee, I know, but I'd like a refund instead[. {ref}]
@gear I opened the box and {fault}, so I'm asking you to pay me back the {price}[. {ref}].
{myorder} is marked delivered and it never came. I want a refund, not a search.
The parcel was lost by {carrier}, they admit it. I no longer want the {item}, just <refund me|pay me back|return \
my {price}>[. {ref}].
You sent the wrong colour. Don't bother exchanging, I want my money back[. {ref}].
I found {an2} in the parcel where the {item} should have been. I'll send that back but please refund me rather \
than post another[, {ref}].
@size The {item} {is} a size too small. My size is sold out, so no swap, money back please[. {ref}].
The {item} came {span} late, I had already bought {oneof} in town. {it} {is} here now, unopened, and I want to \
return {them} for a refund[. {ref}].
I tried to cancel but it came all the same. Now I would like to send the {item} back and have the money \
returned[, {ref}].
One of the two {nitems} was missing from the parcel. I don't need it any more, so please pay that one back[. {ref}].
Nothing is broken and it arrived on time, I just don't like the {item}. How do I return {them} and get paid \
back?[ {ref}]
@size I asked about the size before I bought and your chat said it would fit. It doesn't. So please take the {item} \
back and refund me[. {ref}].
@size An exchange would be no use as all your {items} are cut alike. May I have my money back for {myorder}?
The delivery was nine days late, the {item} {is} fine and stays here, but I want the express charge of {price} \
returned[. {ref}].
I changed the order from two to one before it was sent, and you charged me for two[. {ref}]. Refund the second \
one please.
The old refund from spring came through, thanks. Now a new case: the {item}[ from {ref}] {doesnt} suit, can I get \
my money back?
The zip was fine, the fit was fine, the smell was not. I'd like to give the {item} back against my money[. {ref}].
""")
# ---------------------------------------------------------------- refund_status
CORES["refund_status"] = _lines("""
Return got to you {date}. Money?[ {ref}]
Still no refund for the {item} I returned[, {ref}].
When does my approved refund land?[ {ref}]
Refund was confirmed {span} ago, nothing here[. {ref}].
You have the {item} back, I have no money[. {ref}].
Did my return of the {item} get booked?[ {ref}]
Money from the return still missing[, {ref}].
I sent the {item} back {span} ago and still <no money|haven't seen a penny|wait for the refund>[. {ref}].
Where is my refund[ for {ref}]? You confirmed it on {date}.
You got my return on {day}, says the tracking. When will <the money be on my account|I be paid|the {price} show \
up>?[ {ref}]
The refund for {myorder} was approved {span} ago. Nothing has arrived at my bank.
Your colleague told me the {price} would be back within five days. That was {span} ago[. {ref}].
Has my return[ of {ref}] been booked in yet? I posted it on {date}.
<Did you receive|Have you got> the {item} I returned, and when is the money coming?[ {ref}]
I cancelled {myorder} in {month} and you said the payment would be returned. It <hasn't been|isn't here>.
Still waiting on the refund you promised[ for {ref}].
My bank says there's no incoming payment from you. You wrote on {date} that it had been sent[. {ref}]. Which \
account did it go to?
How long does a refund take after you've confirmed the return?[ It's {ref}.] Mine was confirmed on {day}.
The credit note came by mail, the credit itself did not[. {ref}]. When will it?
I handed the {item} in at your store on {date}, and the lady said the money goes back to the card. So far \
nothing[. {ref}].
My returned {item} {is} shown as "inspected, ok". What is the next step and when do I see the {price}?[ {ref}]
You agreed to pay back the double charge. Could you tell me when?[ {ref}]
Return received, refund "in progress" since {date}[. {ref}]. How much longer?
Any update on the money for the {item} I sent back?[ {ref}]
You only repaid part of what was agreed for {myorder}: {price2} instead of {price}. Where's the rest?
The refund went to my old card, which is closed. Can you see if the money came back to you?[ {ref}]
I'm checking on the refund of the delivery fee that you granted me by mail on {date}[, {ref}].
Posted the {item} back with your own label on {date}. When do I get paid?[ {ref}]
Please confirm that the return[ for {ref}] has reached you and name the day on which the sum is paid out.
It says "refund issued" in my account[ under {ref}], my bank statement says otherwise. Who's right?
{Person} sent the {item} back for me {span} ago[. {ref}]. Has the repayment been started?
The goods are back with you since {day}, where is the money?[ {ref}]
Can you chase your accounts department about my agreed refund of {price}[, {ref}]?
I was told the amount comes back in the way I paid. I paid partly by gift card. When will both parts be there?[ {ref}]
We as a school returned {num} {nitems} with your permission on {date}[, {ref}]. The sum has not been credited \
yet, please check.
You promised me the price difference on {day} by phone. Not arrived as of today[. {ref}].
Money for {myorder} still not back. Return was accepted on {date}.
Has my refund gone out?[ {ref}]
""")
NEAR["refund_status"] = _lines("""
The {item} {was} too small, I sent {them} back as agreed and you've had {them} since {date}. Now I only want to \
know when the money comes[. {ref}].
@gear I returned the {item} because {fault}, and you accepted that. When is the {price} paid out?[ {ref}]
The parcel was lost, you agreed to refund me on {date}. Has that been done?[ {ref}]
I am not asking for a new refund, I'm asking where the one is that you approved[ for {ref}].
It's the refund that's late, not the delivery: agreed {span} ago, nothing on my card[. {ref}].
You cancelled {myorder} at my wish, thanks for that. What about the payment, when will it be returned as you \
confirmed?
Tracking says that my return parcel was delivered to you on {date}. So when do I see the money?[ {ref}]
At first I wanted an exchange, then we agreed on a refund since it was sold out. That was {span} ago. How is it \
going?[ {ref}]
The wrong {item} went back to you with the prepaid label and you wrote "refund on its way". On its way where?[ {ref}]
The guarantee case was closed with "money back" on {date}. I haven't received it yet[. {ref}].
You mailed that the refund is done. Could it have got lost like my parcel did? My account shows nothing[. {ref}].
I don't need a new {item} any more, that's all agreed, I sent the faulty one in on {date}. Is the repayment under \
way?[ {ref}]
My address changed since, but the bank account hasn't. Did the refund[ for {ref}] that you confirmed go there?
The delivery was late and you agreed to give me back the express fee. It's been {span}. Where has it got to?[ {ref}]
I cancelled one line of the order[ {o}], the rest came. The mail says that line will be credited. When?
I've kept the boots and sent back the {item}, as per your okay. The partial repayment is what I am waiting for[. \
{ref}].
Has the return of the {item} been checked? Nothing to complain about it, I just want to know how far along the \
payout is[. {ref}].
""")
# ---------------------------------------------------------------- exchange_item
CORES["exchange_item"] = _lines("""
@size {item}: {size} too small, swap for {size2}?[ {ref}]
@size Can I get {size2} instead of my {size} {item}?[ {ref}]
@coloured Could I swap the {item} for {colour2}?[ {ref}]
@size Too big, the {item}. Swap?[ {ref}]
@size {item} don't fit me, {size2} instead please[. {ref}]
@size One size up please, {item} too tight[. {ref}].
@sack,tent,mat,stove Can I trade the {item} for the larger one?[ {ref}]
@size The {item} {is} too <small|tight|big|long>. Can I swap for {asize}?[ {ref}]
@size I got the {item} in {size} as ordered and need {size2}. How do I <swap|exchange> {them}?[ {ref}]
@size Please could I change my {item} for the next size up[ ({ref})]? I took my usual size and {it} pinch{es}.
@coloured I ordered {colour} and {colour} came, but now I wish I'd taken {colour2}. Will you swap the {item}?[ {ref}]
@size Wrong size, my own fault. {size} pinches, {size2} please[. {ref}].
@size The {item} fit{s} everywhere but the length. Do you do {them} in a longer cut, and could I trade?[ {ref}]
I'd rather have the bigger model than the {item} I got. Can I send {them} in and pay the difference?[ {ref}]
@size Is it possible to return the {size} and get {asize2} of the same {item}?[ It was {ref}.]
@size {Person} tried the {item} on and {it} {is} one size too large. We'd like {size2} instead[. {ref}].
@size Need to swap {size} for {size2}[, {ref}].
@coloured The {colour} looks different in daylight than on the screen. I'd like the {item} in {colour2} instead[. \
{ref}].
@wear,boots I bought the men's {item}, I should have taken the women's. Would you exchange {them}?[ {ref}]
@wear The sleeves of the {item} stop well above my wrists in {size}. Can I have {size2}?[ {ref}]
@boots With thick socks I can't get into the {item}. Half a size up would do it. How do I go about swapping?[ {ref}]
@boots The {item} rub{s} at the heel. I would like to try the wide fit of the same shoe instead[. {ref}].
@sack The {item} {is} too short for my back. Can I swap {them} for the long back length?[ {ref}]
@bag I took the regular {item} and my feet hit the bottom. Please swap for the long version[. {ref}].
@tent The {item} {is} smaller than we thought for two adults and a dog. We'd like to trade {them} for the \
three-man version[. {ref}].
@mat I'd like the wide version of the {item} in place of the standard one. Nothing is used[. {ref}].
@poles The {item} are too short for me even fully out. Is there a longer model I can have in exchange?[ {ref}]
@elec Could I swap the {item} for the stronger model? Unused, box opened once[. {ref}].
@wear Bit snug round the middle, {this} {item}. {asize2} would be kinder. Swap?[ {ref}]
@size Our club got {num} {nitems} and two of the members need {size2} rather than {size}. How do we swap those \
two?[ {ref}]
@hand The {item} came as ordered in {size}, but my hands are small. May I change to {size2}?[ {ref}]
Can I exchange the {item} in the store in town, or must it go by post?[ I bought it as {ref}.] I want the other \
version.
@size What's the cheapest way to get the {item} in {size2} in place of the {size} I have here?[ {ref}]
@size I'd love to keep the {item} but not in this size. {size2} please and I'll post {these} back[. {ref}]
@coloured It's a present and she would prefer {colour2}. Tags are still on the {item}. Could you exchange \
{them}?[ {ref}]
@size Size {size} swims on me. Have you got {size2} to swap?[ {ref}]
@stove,cook I picked the small {item} and we are five. I'd like to change up to the large one and pay extra[. {ref}].
@size Dear team, {item} size {size} is little for me. I wish to change on {size2}[. {ref}].
@misc The {item} {is} fine but the lighter type would suit us better. Would you do a straight swap if I pay the \
rest?[ {ref}]
@size Swap request: {item}, have {size}, want {size2}[, {ref}].
@size I measured as your chart says, took {size} and can hardly move. One size up please, same colour[. {ref}].
@hard The {item} in size 1 {is} too small for me. I'd like size 2 instead, unused[. {ref}].
""")
NEAR["exchange_item"] = _lines("""
@size I don't want a refund for the {item}, I'd like {them} one size bigger[. {ref}].
@size You sent exactly what I ordered, so no mistake on your side, but I need {size2} and not {size}. Can we \
swap?[ {ref}]
@coloured Nothing is broken and nothing is wrong with {them}, I would simply prefer the {item} in {colour2}. May \
I swap?[ {ref}]
@size The {item} arrived late but arrived. Now it turns out that {size} is too big. Could you exchange {them} for \
{size2}?[ {ref}]
@size Instead of my money back I'd take the same {item} in {size2}, if you have {them}[. {ref}].
@size My order has already come, so too late to change it I know, but can the {item} be swapped from {size} to \
{size2}?[ {ref}]
@size I nearly cancelled for the long wait, glad I didn't, they're lovely, only too small. Have you {size2} in \
exchange?[ {ref}]
@size I had returned the first purchase for a refund. With the second, the {item}, I'd prefer a swap to {size2}[. \
{ref}].
@sack,tent,bag Not damaged, not faulty, just the wrong choice by me: could the {item} go back and the larger one \
come here?[ {ref}]
@size The guarantee has nothing to do with it, they are brand new, the {item} just {doesnt} fit. {size2} please[. \
{ref}].
@size Do you have the {item} in {size2}? If so, I would like to send you my {size} and get that one[. {ref}].
@size I know I get my money back within 30 days. Not needed. What I need is {asize2} for the {size}[, {ref}].
@boots They don't leak, they don't squeak, they only squeeze. Please send me the {item} in {size2} for the ones I \
have[. {ref}].
@coloured My order said {colour} and {colour} came, so that's correct, but it's awful on me. The {item} in \
{colour2} instead please[. {ref}].
@size I wrote to change the size before you shipped, but the {size} came. It's as ordered, so can I now swap \
{them} for {size2}?[ {ref}]
@wear,boots The tracking said delivered and so it was, the {item} {is} great, the size isn't. Exchange for \
{size2}?[ {ref}]
@size I don't want a voucher or money, just a swap of the {item}, {size} against {size2}[. {ref}].
""")
# ---------------------------------------------------------------- damaged_item
CORES["damaged_item"] = _lines("""
@gear {item} arrived broken: {fault}[. {ref}].
@gear Brand new and {fault}[. {ref}].
@gear New {item}, {fault}[. {ref}].
@gear {fault}, straight from the parcel[. {ref}].
@gear Just opened: {fault}[. {ref}].
@gear Unpacked {item}, {fault}. New one please[. {ref}].
@gear The {item} came today and {fault}[. {ref}].
@gear Just unpacked the {item}: {fault}. <What now|What do I do|Please advise>?[ {ref}]
@gear {fault}. Brand new {item}, straight out of the box[. {ref}]. <Please send another|Can I have a new one|What \
happens now>?
@gear The box was <crushed|soaked|ripped open> and {fault}[. {ref}]. I need {an} in good order.
@gear First time I used the {item}, {fault}. {this} {is} new![ {ref}]
@gear Opened the parcel and found that {fault}. Would you replace the {item}?[ {ref}]
@gear My {item} arrived faulty[ ({ref})]. To be exact, {fault}.
@gear {Person} was so looking forward to the {item}, and then {fault}, right from the packaging. Please help[. {ref}].
@gear I have photos if you like: {fault}. The {item} came like that[. {ref}].
@gear Out of the <wrapper|bag|carton> and already a ruin, {fault}[. {ref}]. How do we proceed with the {item}?
@gear The courier must have thrown it about. The {item} {is} here but {fault}[. {ref}].
@gear Received {myorder} on {day}. Sadly {fault}. Can you send me {an} in good shape?
@gear We put the {item} to use for the first time last night and {fault}. Not ok for something new[. {ref}].
@gear Is it normal that {fault}? I took the {item} out of the plastic an hour ago[. {ref}].
@gear Of the {num} {nitems} in our delivery one is broken: {fault}[. {ref}]. Could we have a new one?
@gear Good day, I receive {item} but {fault}. Please you send new[. {ref}].
@gear Quality control asleep? {fault}, and the {item} {was} never even used[. {ref}].
@gear I'm sorry to report that {fault}. {it} came this way with the {day} post[, {ref}].
@gear Unboxed the {item}, {fault}, packed {them} up again. Now what?[ {ref}]
@gear New {item}, day one, {fault}. Replacement please[. {ref}].
@gear There's something wrong with the {item} you sent[ in {ref}]: {fault}. {it} {was} like this on arrival.
@gear As soon as I took the {item} out I noticed that {fault}. Would you tell me what to do with {them}?[ {ref}]
@gear Everything else in the delivery is lovely but with the {item} {fault}[. {ref}]. Can this be put right?
@gear Hello, arrived broken[, {ref}]. With the {item} {fault}.
@gear The packaging was perfect, so it must have left you that way: {fault}. I'd like {an} without faults[. {ref}].
@gear It never worked. {fault}. It's the {item} from this week's delivery[, {ref}].
@gear Tried the {item} in the living room to be sure. Well, {fault}. Do you send a new one?[ {ref}]
@paper The {item} in my parcel {is} spoilt, {fault}[. {ref}].
@paper Rain got into the envelope with the {item} and {fault}. Could you send new?[ {ref}]
@gear Bad surprise at unwrapping: {fault}. {this} {item} {was} meant as a present[. {ref}]. What can you do for me?
@gear Item arrived defective, {fault}[. {ref}].
@cook The {item} got squashed in the post, {fault}[. {ref}].
@gear Broken on arrival[, {ref}], {fault}. Please tell me whether you want the {item} back before you send a \
fresh one.
@gear I've had the {item} for all of one hour. In that hour I learned that {fault}[. {ref}]. Please sort me out a \
good one.
""")
NEAR["damaged_item"] = _lines("""
@gear I don't want my money back, only {an} that {is} whole: {fault}, and that on day one[. {ref}].
@gear It's the right size and the right colour, so no exchange of that kind, but {fault}. It came out of the box \
that way[. {ref}].
@gear The parcel was {span} late, fine, but now it's here and {fault}. Please replace the {item}[. {ref}].
@gear Your guarantee page talks of years of use. I had {them} in use for no minute: {fault}, brand new[. {ref}].
@gear Nothing missing from the parcel and nothing mixed up. Only, with the {item}, {fault}, from the start[. {ref}].
@gear Don't know if this counts as warranty, the {item} came yesterday and {fault}. Could you send another?[ {ref}]
@gear I nearly sent the {item} back for a refund, but I do want one, just not with this trouble: {fault}. {it} \
arrived so[. {ref}].
@gear Tracking said delivered, and it was, in a puddle, and {fault}. Can I have {an} that {is} dry and whole?[ {ref}]
@gear You already replaced one for me, thanks. The replacement {item} arrived and {fault} again[. {ref}].
@gear I had asked you to change the colour to {colour} and you did, great. What isn't great: {fault} on arrival[. \
{ref}].
@gear I was thinking of cancelling when it took so long. It came at last and {fault}. Please tell me how I get \
{an} in one piece[. {ref}].
@gear How do you care for {an}? Not at all, it seems, since {fault} when I took {them} from the wrapping[. \
{ref}]. Please advise.
@gear My old {item} lasted ten years and then failed honestly. The new one from you, unpacked today: {fault}[. {ref}].
@gear No refund and no voucher please, just {an} without this: {fault}. {it} came so[, {ref}].
@gear Half of the order is perfect. The other half is the {item}, and {fault}, unused[. {ref}]. Can you make good \
on it?
@gear Is there a way to swap a broken one for a whole one? The {item} came on {day} and {fault}[. {ref}].
""")
# ---------------------------------------------------------------- warranty_claim
CORES["warranty_claim"] = _lines("""
@gear {failed} after {use}. Guarantee?[ {ref}]
@gear {item}, {age} old, {failed}. Repair?[ {ref}]
@gear Can you mend my {item}? {failed} after {use}[. {ref}].
@gear After {use} {failed}. Still under guarantee?[ {ref}]
@gear {item} repair: {failed} after {use}[. {ref}].
@gear After {use} {failed} on my {item}. <Is that covered|Can you repair {them}|Does the guarantee cover that>?[ \
{ref}]
@gear I've had the {item} for {use} and now {failed}[. {ref}]. What can be done?
@gear My {item} gave up after {use}: {failed}. <Warranty|Guarantee>?[ {ref}]
@gear The {item} {was} fine for {use}. Now {failed}. I'd like {them} repaired under the guarantee[. {ref}].
@gear Bought in {month} last year[ ({ref})], used with care, and now {failed}. How do I claim?
@gear Do you repair {items}? After {use} {failed}[. {ref}].
@gear {failed} after only {use}. Surely {an} should last longer. Please tell me where to send {them}[. {ref}].
@gear Need a spare part under guarantee for my {item}, {failed} the other day after {use}[. {ref}].
@gear {Person} has used the {item} for {use}, and last weekend {failed}. {is} {it} still within the guarantee?[ {ref}]
@gear The three-year guarantee: how does it work? On my {item}, {age} old, {failed}[. {ref}].
@gear I have loved {this} {item} for {use} but {failed}. Could your workshop have a look?[ {ref}]
@gear Not two years old and {failed}. I still have the receipt for the {item}[, {ref}]. I'd like to claim on the \
guarantee.
@gear It worked perfectly for {use}. On our last trip {failed}. What are my options for the {item}?[ {ref}]
@gear Guarantee claim: {item}, bought {month} last year[, {ref}], {failed}.
@gear On the {item} that I got from you {age} ago {failed}, and I've used {them} only at weekends[. {ref}]. Can \
{it} be mended?
@gear We're a guide office and own {num} of your {nitems}. With one, after {use}, {failed}[. {ref}]. Please \
handle under warranty.
@gear My {item} needs the doctor. {failed} after {use} of normal use[. {ref}].
@gear How long is the guarantee on {an}? Mine {is} {age} old and {failed}, so I need {them} fixed[. {ref}].
@gear Hello, my {item} work good {use}, now {failed}. I want repair please[. {ref}].
@gear Failed in the field: {failed}, after {use}[. {ref}]. Where do I send the {item} for repair?
@gear Sad day, {failed}. The {item} and I had {use} together. Repair possible?[ {ref}]
@gear Would you honour the guarantee even though I washed the {item} once? After {use} {failed}[. {ref}].
@poles,sack,tent,elec,stove Can I get a spare part for the {item}? {failed} after {use}, and {it} {is} still \
under guarantee[. {ref}].
@gear Could I drop the {item} off in your store for repair? Since {month} {failed}, after {use} of use[. {ref}].
@gear I expected more: {use} and {failed}. Please let me know how you deal with guarantee cases for the {item}[. \
{ref}].
@gear The label says lifetime repair. Well, after {use} {failed} and here I am with my {item}[. {ref}].
@gear Used maybe ten times in {age}, my {item}, and {failed}[. {ref}]. Please arrange a repair.
@gear I registered the {item} for the extended guarantee[ ({ref})]. Now, {use} on, {failed}. What next?
@stove,elec I'd had the {item} for {use} when {failed}. Is there a service kit on guarantee?[ {ref}]
@boots {failed} after {use}. Can the {item} be resoled or mended under your guarantee?[ {ref}]
""")
NEAR["warranty_claim"] = _lines("""
@gear The {item} arrived in {month} last year in perfect order. After {use} {failed}. Please repair {them}[. {ref}].
@gear I'm not after a refund, I just want the {item} mended under the guarantee; {failed} after {use}[. {ref}].
@gear {it} {was} not damaged when {it} came, far from it, but after {use} {failed}. {is} the {item} still \
covered?[ {ref}]
@gear No exchange please, I'm fond of this one. {failed} after {use}, so a repair of the {item} would be great[. \
{ref}].
@gear The order came quickly back then, no complaint, and the {item} served me {use}. Now {failed}. Guarantee?[ {ref}]
@gear A question about your products, or rather about mine: after {use} {failed} on the {item}. Does the warranty \
pay for a repair?[ {ref}]
@gear Delivered late, worn for {use} gladly, and now {failed}. Would the guarantee cover my {item}?[ {ref}]
@gear I won't ask for my money back after {use}, that'd be cheeky. But {failed}, and the guarantee runs, so can \
the {item} be fixed?[ {ref}]
@gear When I unpacked the {item} everything was right. {use} later {failed}. Do you mend such things for free?[ {ref}]
@gear My wife says send it back and get a new one. I'd prefer a guarantee repair: {item}, {age} old, {failed}[. \
{ref}].
@gear Right item, right size, right colour, and then after {use} {failed}. How do I claim for the {item}?[ {ref}]
@gear You exchanged the {item} for a bigger size in {month} last year, and that one has now failed as well after \
{use}: {failed}. Guarantee repair?[ {ref}]
@gear Not out-of-the-box trouble this time: I used the {item} for {use}, then {failed}[. {ref}]. Repair or spare \
part please.
@gear A part isn't missing, it broke off: after {use} {failed}. May I have the spare under the guarantee for my \
{item}?[ {ref}]
@gear Did my last repair parcel reach you? No matter, that one came back fine. New matter: on the {item} after \
{use} {failed}. Please take {them} in on guarantee[. {ref}].
@gear Where do things go for repair? The delivery note of the {item}[ ({ref})] says nothing of it, and after \
{use} {failed}.
""")
# ---------------------------------------------------------------- wrong_item
CORES["wrong_item"] = _lines("""
Got {an2}, ordered {an}[. {ref}].
Wrong thing in the box, it's {an2}[. {ref}].
No {item} in the parcel, just the rest[. {ref}].
That's not my {item}, that's {an2}[. {ref}].
@coloured Ordered {colour}, got {colour2}[. {ref}].
@size Ordered {size}, label says {size2}[. {ref}].
Why is there {an2} in my parcel?[ {ref}]
One {unit} missing from the box[, {ref}].
I ordered {an} and got {an2}[. {ref}].
You sent me {an2} instead of the {item}[. {ref}]. <What now|Please send the right one|How do we fix this>?
@coloured I ordered the {item} in {colour} and the parcel had {colour2}[. {ref}].
@size My order says size {size}, the label on the {item} says {size2}. <Please send the right one|That's not what \
I ordered>[. {ref}].
The {item} {was} missing from the parcel[, {ref}]. Only the rest was in it.
There's {an2} in my box which I never ordered, and my {item} {is} not in it[. {ref}].
Only one of the two {nitems} was in the parcel[. {ref}]. Where's the other one?
Somebody else's order is in my parcel: {an2} for a stranger[. {ref}]. How do I get my {item}?
@tent The pegs and guy lines are missing from the bag with the {item}[. {ref}]. Could you post them?
@tent There's no flysheet with the {item}, just the inner[. {ref}].
@boots Two left boots. Really. The {item}[, {ref}].
@boots One shoe is {asize}, the other {asize2}, in the same box of {item}[. {ref}].
@poles Only one pole in the bag where there should be a pair of {item}[. {ref}].
@stove The {item} came without its hose and windshield[, {ref}], both on the packing list. Please send.
@elec No battery and no cable in the box of the {item} although both are listed[. {ref}].
@sack The rain cover that belongs to the {item} isn't in the package[. {ref}].
@wear I got the women's {item} and ordered the men's, it's written so in the confirmation[ of {ref}].
The packing slip lists {num} things, I count one less. The {item} {is} not there[. {ref}].
Not mine! I unpacked {an2}. My order was for {an}[, {ref}].
The box had the right label and the wrong contents, {an2} where my {item} should be[. {ref}]. Please sort.
You've mixed something up. I was to get {an}, what came is {an2}[. {ref}]. Do you collect it?
We ordered {num} {nitems} for the group and received one too few[. {ref}]. Please post the missing one.
I received {an2} that I didn't order. Shall I keep it till you fetch it, and when does my own {item} come?[ {ref}]
Nice {item2}, only that's not the {item} I ordered[, {ref}].
@cook The lid of the {item} was not in the box[. {ref}]. Can I have it sent on?
@misc Parts A and C of the {item} were in the carton, part B wasn't[. {ref}]. Please send part B.
I paid for the {item} and the {item2}. Parcel came today with the {item2} alone, no note that more follows[. {ref}].
@paper I wanted the eastern sheet and got the western one of the {item}[. {ref}].
@hard The confirmation lists {an}, in the box lay {an2}. Please send the correct thing[. {ref}].
Wrong product in parcel. Ordered {item}, received {item2}[. {ref}].
@bag The {item} came without its stuff sack, which the page says is included[. {ref}].
Dear shop, in packet is not my {item}, is {item2}. Please send correct[. {ref}].
@hand I got two left-hand ones of the {item}. Unless I grow another left hand that's a mistake[. {ref}].
""")
NEAR["wrong_item"] = _lines("""
No refund please, just the {item} I actually ordered in place of the {item2} you sent[. {ref}].
Nothing is damaged and it came on time, but it's {an2} and not {an}[. {ref}].
It's not that I want to exchange: I ordered {an}, you packed {an2}. Please send me mine[. {ref}].
@size Not too small, not too big, simply not what I ordered: confirmation says {size}, you sent {size2}[. {ref}]. \
Please send the right {item}.
@coloured I'm not changing my mind on the colour, I ordered {colour} from the start and got the {item} in \
{colour2}[. {ref}].
The parcel isn't lost, it's right here, only the {item} {is} missing from it[. {ref}].
Tracking says delivered, fine, but what they delivered is {an2} meant for someone else[. {ref}]. Where {is} my {item}?
I asked you to change {colour} to {colour2} before dispatch, you confirmed it in writing, and then something \
altogether different was in the box: {an2}[. {ref}].
The replacement you sent for my faulty {item} turned out to be {an2}. Could you send the right replacement?[ {ref}]
The exchange parcel came, thanks, but there was {an2} in it, not the {item} we agreed on[. {ref}]. Please put right.
Is it late or forgotten? The parcel arrived complete per courier, yet the {item} on the slip was not in it[. {ref}].
The {item} {isnt} broken, a piece is missing: the bag of small parts that the leaflet shows wasn't packed[. {ref}].
I thought about cancelling the rest but no. Please just send the {item} that was left out of my parcel[. {ref}].
I'd have taken a refund last year, this time I want my goods. You sent {an2}, the order says {an}[. {ref}].
{does} the {item} normally come in a box marked {item2}? Because that's what is inside too. I ordered the \
former[. {ref}].
@gear It arrived late, in the rain, and it was {an2}. I had ordered {an}. Please get me the right thing[. {ref}].
""")
# ---------------------------------------------------------------- change_order
CORES["change_order"] = _lines("""
Please send {myorder} to {addr} instead.
@size Make it {asize2} please, not {asize}[, {ref}]. Not shipped yet.
@coloured {colour2} not {colour} please, before you pack my {item}[, {ref}].
Can I collect {myorder} from the store instead?
Please deliver {myorder} on {day} instead.
Add {an2} to {myorder} please.
New address for {myorder}: {addr}.
Two {nitems} instead of one please[, {ref}], still open.
Please change the delivery address of {myorder} to {addr}.
I gave the wrong house number[ on {ref}], it should be {addr}. Can you <correct|change> it?
@size Could you make the {item}[ on {ref}] {asize2} instead of {size}? {it} {hasnt} been sent yet.
@coloured I'd like the {item} in {colour2} rather than {colour} please, still "processing" in my account[, {ref}].
Can I make it {num} {nitems} instead of one[ on {ref}]?
Would it be possible to add {an2} to {myorder}?
Please send {myorder} to my work, {addr}, and not to my home.
Can {myorder} be delivered on {day} rather than {day2}? <I'm out that day|There's nobody in|We are away>.
I'd prefer to pick {myorder} up in your store. Can you switch that?
Could you put a gift note in {myorder}? Text: "<Happy trails|Have fun out there|With love>, {name}".
The name on {myorder} should be {name}, not mine. <Please alter that|Can you fix it>?
Please hold {myorder} back until after {date}, I'm not at home before.
I want to switch from home delivery to a pickup shop[ for {ref}]. How?
@size Ordered {size} by mistake, meant {size2}. The {item}[ on {ref}] hasn't left you yet. <Can you fix \
that|Please correct>.
Please use the billing address of our club on {myorder}: {addr}.
Could I swap standard post for express on {myorder}? I'd pay the extra.
Add one more {unit} to {myorder} please.
Just noticed the street is wrong[ on {ref}]. Correct is {addr}. Please amend.
@coloured Different colour please: {item}, {colour2}. Not shipped so far[, {ref}].
Can the driver leave {myorder} with the neighbour at {addr}? Please note it on the parcel.
My phone number[ on {ref}] is out of date, please put in {phone} so the driver can ring.
I'd like to upgrade the {item} in my still open order[ {o}] to the larger model. OK?
Make that two pairs please, not one, on the order I placed yesterday[, {ref}].
Is it possible to split {myorder}, so that the {item} go{es} to {addr} and the rest to me?
Please combine my two open orders into one parcel[, the main one is {ref}].
Hello, I must to change address for order[ {o}]. New: {addr}. Thank you.
Please remove the gift wrap from {myorder} and leave the rest as it is.
We're moving house next month, so {myorder} should go to {addr}. Please change it.
@size I misread the chart. May I still change the {item} to {size2} before you pack it?[ {ref}]
Can you deliver {myorder} in the evening and not in the morning? There's a box to tick somewhere but I missed it.
I forgot to enter the flat number. It's {addr}, flat <2|3|5>. Please add it to {myorder}.
Wrong town picked from the list by me[ on {ref}], it's {addr}. Can you change that?
""")
NEAR["change_order"] = _lines("""
I don't want to cancel {myorder}, only to change the address to {addr}.
No need to stop the order, just make the {item} {colour2} instead of {colour}, {it} {is} still with you[. {ref}].
@size The {item} {hasnt} come yet, so it's no exchange I think: please pack {size2} rather than {size}[. {ref}].
I know where it is, thanks, tracking works. I'd just like {myorder} to go to {addr} instead.
As {myorder} is late anyway, you may as well send it to my holiday address, {addr}. Please change that.
I thought of cancelling and ordering anew but perhaps you can simply add {an2} to {myorder}?
@size I got the wrong size last time and had to send it back. So please change the {item}[ on {ref}], not yet \
sent, from {size} to {size2} now.
You need not refund the difference, but please change the {item} in my open order[ {o}] to the smaller model.
My last parcel was stolen from the {place}, so please send {myorder} to the pickup shop instead.
{Person} is allowed to take it in for me. Please change the recipient of {myorder} to {name}, all else stays.
Will it come on {day}? If so, please shift {myorder} to {day2}, I'm at work.
No complaint, nothing broken, nothing lost. I only want a different delivery day for {myorder}, {day2} would do.
Are the {items} also sold in {colour2}? If yes, please switch the one in {myorder} which is still being packed.
Take {person} off the order and put my name in, but do NOT cancel {myorder} please.
I received the first half already, perfect. For the second half[ of {ref}], still to come, please change the \
address to {addr}.
Instead of paying me back for the sold-out colour, please change the {item}[ on {ref}] to {colour2} and send it.
""")
# ---------------------------------------------------------------- cancel_order
CORES["cancel_order"] = _lines("""
Stop {myorder} please.
Don't send the {item}[, {ref}].
Can I still get out of {myorder}?
Cancel the {item}, keep the rest[. {ref}].
I don't want {myorder} any more, please stop it.
Please cancel, I ordered the {item} by mistake[. {ref}].
Changed my mind, please don't ship {myorder}.
Too late to cancel {myorder}?
Please cancel {myorder}.
I'd like to <cancel|call off|stop> {myorder}, <I no longer need it|I found one in the attic|I've changed my mind>.
Can I still cancel the {item} I ordered on {day}[, {ref}]?
Don't send the {item}. I've bought {oneof} in town[. {ref}].
Could you stop {myorder}? {Person} ordered the same thing.
I ordered twice by mistake, please cancel one of them[, namely {ref}].
Please take the {item} off my order[ {o}] and send the rest.
We don't need the {num} {nitems} any more, the course was called off[. {ref}]. Kindly cancel.
Cancel pls[ {ref}].
Our trip is off so I don't need the {item} now. Can you cancel?[ {ref}]
I'd like to withdraw my order for {an}, nothing has been sent yet as far as I see[. {ref}].
My son ordered {an} with my account without asking. Please stop it[, {ref}].
Please void {myorder} and confirm by mail.
I pressed the buy button by accident[, {ref}]. I don't want the {item}. Please cancel.
The {item} {is} listed as "back order until autumn". Please cancel {them}, keep the other things[. {ref}].
Forget about {myorder} please, found it cheaper elsewhere.
I won't be needing the {item} after all. How do I cancel?[ {ref}]
No longer wanted: {item}[, {ref}]. Please do not dispatch.
Hello, I want annul my order of {item}[, {ref}]. Please confirm.
The cancel button in my account is greyed out[ for {ref}]. Could you do it for me?
I broke my ankle, so no hiking this year. Please cancel {myorder}.
Please strike the {item} from the order, {person} is lending me {oneof}[. {ref}].
Our committee has decided against the purchase. Please cancel {myorder} in full.
Sorry, I mixed up the shops. I'd like to cancel {myorder}.
Can you please not ship {myorder}? I realised I can't afford it this month.
Just stop {myorder}. I've had second thoughts.
@size I picked the wrong size and it turns out the right one's sold out. So please cancel the {item}[, {ref}].
One line only: cancel the {item}, leave the {item2} as it is[. {ref}].
Please delete the order I made under the name of {name}[, {ref}].
I read some reviews after I ordered the {item} and don't want {them} now. Please cancel[, {ref}].
Scrap {myorder} please, and let me know that it's scrapped.
""")
NEAR["cancel_order"] = _lines("""
{myorder} is {span} late. Enough. Please cancel it.
I've waited {span} for the {item} and I'm done waiting, cancel[. {ref}].
Where is {myorder}? Actually never mind where, just cancel it, I've bought another.
It's not about a refund for something I have, the {item} {hasnt} even been sent. Please cancel {myorder}.
I wanted to change the colour but your colleague says it can't be done, so cancel {myorder} instead.
If you can't tell me when it ships, and you couldn't, then please cancel the {item}[, {ref}].
You pushed the date back again, so I no longer want the {item}. Please cancel and confirm[. {ref}].
@size I ordered the {item} in {size} when I need {size2}. Don't change it, just cancel it, I'll order again[. {ref}].
My question about the material was answered with no, so please cancel the {item} that's still on order[, {ref}].
I returned one of these last year because it broke. Silly me to order another. Please cancel {myorder}.
Don't swap it, don't send a different model, simply cancel the {item} that hasn't come yet[. {ref}].
The first parcel was damaged and I've lost heart. Please cancel the second one, not yet shipped[, {ref}].
I was going to ask for a new delivery day but we're away all month, so please cancel {myorder} altogether.
The tracking page says label printed for {span} now. I've given up on the {item}, please cancel {them}[. {ref}].
You sent me a wrong item last time and I fear the same again. Please cancel {myorder}.
Please stop the delayed {item} and keep the rest of the order as it stands[. {ref}].
I don't need an exchange for the pair I have, and the second pair on order I don't need either: please cancel \
that one[, {ref}].
""")
# ---------------------------------------------------------------- product_question
CORES["product_question"] = _lines("""
{is} the {item} waterproof?
Got the {item} in stock?
How heavy {is} the {item}?
@size {does} the {item} run small?
@coloured Any {items} in {colour2}?
Are your {items} made of recycled stuff?
How long {does} the {item} usually last?
{item} or {sib}, which would you take on a long walk?
Can I wash the {item}?
Which shop of yours has {items} to try?
{is} the {item} <warm enough for October|suitable for beginners|made without plastic|light enough for a child>?
Do you have the {item} in stock in <your harbour store|the town store|any of your stores>?
How do I <wash|clean|store|look after> {an}?
@size How do your {items} run, large or small? I am between {size} and {size2}.
What's the difference between the {item} and the {sib}, weight aside?
@wear Can I iron the {item}, or does that ruin the coating?
@tent How big is the {item} when packed? It has to go on my bike.
@tent {does} the {item} stand up in strong wind, say on a beach?
@tent Which groundsheet goes with the {item}?
@bag What temperature is the {item} honestly good for? I sleep cold.
@bag Can two of the {items} be zipped together?
@stove Which gas cartridges fit the {item}?
@stove,cook {does} the {item} work with an induction hob at home or only outside?
@boots Are the {items} <good for wide feet|fine with crampons|OK for wet rock>?
@boots What wax do you recommend for the {item}?
@sack How long a back is the {item} made for? I'm {num2} cm tall.
@sack Would the {item} pass as hand luggage on a plane?
@elec How many hours {does} the {item} last on full power?
@elec {does} the {item} take ordinary AA cells?
@poles How small do the {items} fold, and do they take snow baskets?
@hard How often should {an} be replaced if {it} {is} hardly used?
@hard What's the weight limit on the {item}?
@hard Can a child of nine use the {item}?
@misc,cook {is} the {item} safe in the dishwasher?
@mat What's the R-value of the {item}? Can't find it on the page.
Will you get the {item} back in <before spring|in other colours|this season>?
@coloured {does} the {item} come in {colour}? I see only {colour2} on the site.
Hi, which of your stores lets me try the {item} out?
Can you recommend {an} for <a gentle long-distance path|hut tours with children|someone over seventy|wet moorland>?
Is art. {art} the same as the older {item} you used to sell?
@elec,stove,misc Could I take the {item} on a plane, do you know?
Do you hire out things like {an}, or only sell?
@paper {does} the {item} cover the islands as well?
What {is} the {item} made of? I get a rash from wool.
Do you give a discount for scout groups on, say, {num} {nitems}?
@wear {is} the {item} roomy enough for a jumper underneath in {size}?
Are your {items} made in a decent factory? It matters to me.
Do you ship the {item} abroad?
Opening hours of the town store please? I want to look at {an}.
@coloured Is the {colour} of the {item} more of a bright or a muddy one?
How heavy {is} the {item} really, with everything?
What about a spare strap or part for the {item}, do you sell those separately?
""")
NEAR["product_question"] = _lines("""
I've got nothing to return or complain about, I only wonder if the {item} can be machine washed.
Before I order: if the {item} {doesnt} fit, how long do I have to send {them} back?
How long is the guarantee on the {item}? Mine isn't broken, I haven't bought {oneof} yet.
What's your delivery time for {an} to the islands? Haven't ordered, just planning.
Can orders be changed after the fact with you, or cancelled? I'm thinking of buying {an} but am not sure of the \
colour.
My {item} arrived and {is} lovely. Which spray do you advise for proofing {them}?[ It was {ref}.]
@size I exchanged a pair last year and all went well. This time I'd like to know beforehand: {does} the {item} \
run small?
A friend's {item} leaked, not from your shop. Is yours any better sealed?
I bought {an} from you in {month} and am very happy. What should I clean {them} with?[ {ref}]
If a parcel gets lost on the way, who carries the risk with you? I'd like to know before I buy {an}.
{is} the damaged-box {item} in your outlet complete, or are there parts missing? I might buy {them}.
I'd cancelled one last year for the price. {is} the {item} coming into the sale again?
@tent,elec,poles Are spare parts to be had for the {item}? Nothing's broken, I like to know before I buy.
Not about my order, that's fine. Could you say if the {item} {is} any good in sea air?
The refund policy on your page speaks of 30 days. Does that hold for sale items such as the {item} too? I'm only \
looking.
My wife's {item} from you {has} held for nine years. Do you still make the same one?
Do the {items} usually arrive well packed? I'd be ordering {oneof} as a gift.
Would I be able to swap if I bought the {item} for someone else and {it} didn't fit? Nothing bought yet.
""")

# ------------------------------------------------- whole messages whose core itself is pressing (urgency high)
HIGH_CORES.update(
    {
        "track_order": _lines("""
I'm off to the airport <tonight|tomorrow at six|tomorrow morning>. Does {myorder} get here before that?
We set off {soon}. Where {is} the {item} now, can I still meet the driver somewhere?[ {ref}]
Will the cool bag for my insulin come today[, {ref}]? The old one has split and I've nothing to keep it cold in.
Is {myorder} really coming {soon_del}? The race starts <an hour after that|the same evening>.
@wear,boots,bag The bus with my class leaves {soon} and one child has nothing warm. Where {is} the {item}[, {ref}]?
"""),
        "late_delivery": _lines("""
The {item} should have been here on {date}[, {ref}] and I go up to the hut {soon}. What can you do?
Overdue by {span}, and my exam for the guide's badge is {soon} and needs the {item}[. {ref}].
My insulin cool pouch was due {span} ago[, {ref}], the heatwave is here and I have no other way to keep it cold.
Delivery was promised for {date}. The wedding hike is {soon}. I still want the {item}, just please get {them} \
here in time[. {ref}].
Five days late and our ferry goes {soon}[. {ref}]. Can I fetch the {item} from the depot myself?
"""),
        "lost_parcel": _lines("""
It's marked delivered, it isn't here, and we start the walk {soon}. Please find the {item} or send {oneof} by \
express[. {ref}].
The parcel with the cool pouch for my daughter's insulin was stolen off our step[, {ref}]. She needs it now, in \
this heat.
{carrier} has lost {myorder}, and my expedition flies out {soon}. What can you still do?
"""),
        "refund_request": _lines("""
You charged me twice[ for {ref}] and my rent goes out {soon}, it will bounce. Please pay one back today.
Please refund the {item}[, {ref}], I need the {price} to buy another in town before we leave {soon}.
@stove,hard,elec {danger}, so nobody must use this any more. I want my money back for the {item}, and please warn \
other buyers at once[. {ref}].
Double charge of {price}[. {ref}]. I'm overdrawn because of it and the bank fines me from tomorrow on. Money back \
please.
"""),
        "refund_status": _lines("""
The refund you confirmed on {date} isn't here[, {ref}] and my rent is due tomorrow. Can you tell me if it comes today?
My time to dispute the payment with my bank runs out {soon}. Will the agreed refund[ for {ref}] be there by then?
I have no money for food until the {price} you owe me is back; return accepted on {date}[. {ref}]. Where is it?
"""),
        "exchange_item": _lines("""
@size The {item} {is} too small and we leave {soon}. Could I swap for {size2} in your store today?[ {ref}]
@size Summit course starts {soon} and I've got {size} where I need {size2}. Can you swap the {item} by express?[ \
{ref}]
@coloured The hosts want all helpers in {colour2} {soon}, I took {colour}. Can the {item} be swapped in time?[ {ref}]
"""),
        "damaged_item": _lines("""
@stove,hard,elec New {item}, first use, and {danger}. What should I do?[ {ref}]
@stove,hard,elec Please read: {danger}. The {item} came only yesterday[. {ref}]. Do I get a new one?
@stove,hard,elec Unpacked the {item} just now and {danger}[. {ref}]. Replacement please.
@stove,hard,elec I think others may have the same {item} from your latest delivery. {danger}, straight from the \
box[. {ref}].
@gear The {item} came today, {fault}, and we leave {soon}. Can you replace {them} before?[ {ref}]
@gear {fault}, on a brand new {item}, the night before our trip. Help[. {ref}].
"""),
        "warranty_claim": _lines("""
@stove,hard,elec After {use} with the {item}, {danger}. Is this a guarantee case?[ {ref}]
@stove,hard,elec My {item} {was} fine for {use}, and now {danger}. Please tell me where to send {them} for \
repair[. {ref}].
@stove,hard,elec Guarantee: {item}, {age} old. {danger}. My group uses these every day[. {ref}].
@gear {failed} on the {item} after {use}, and I lead a tour {soon}. Can your workshop mend {them} while I wait?[ \
{ref}]
"""),
        "wrong_item": _lines("""
I got {an2} instead of {an}[, {ref}] and we leave {soon}. Can the right one be here by then?
@tent The poles are missing from the bag with the {item} and we're meant to sleep in it tonight[. {ref}].
@hard The {item} came without the buckle that locks it, and my pupils climb with it {soon}[. {ref}]. Please send \
the missing part by courier.
Two of the {nitems} weren't in the parcel[, {ref}]; the youth camp begins {soon}.
"""),
        "change_order": _lines("""
I ordered five minutes ago and put the wrong address[ on {ref}]. Please make it {addr} before it goes out.
@size Just ordered, ten minutes back, in the wrong size. Please make the {item} {size2}[. {ref}].
The mail says {myorder} ships this afternoon. It must go to {addr} instead, I've moved.
Please change {myorder} to store pickup today, I leave the country {soon}.
"Your parcel will be handed over tonight" I read. Please put {addr} on it first, the old address is wrong[. {ref}].
"""),
        "cancel_order": _lines("""
I placed {myorder} a few minutes ago by mistake. Please stop it before it is packed.
Your mail says the {item} go{es} out in an hour. Please stop that, I don't want {them}[. {ref}].
Cancel {myorder} please, it was made by my four-year-old just now and I see it's already being packed.
Ordered ten mins ago, double click, two orders. Kill one[, {ref}], before it ships today.
Please cancel {myorder} today, the direct debit tonight would put my account in the red.
"""),
        "product_question": _lines("""
I leave {soon} and stand before my pack: {is} the {item} ok down to minus ten?
@stove Can I use the {item} inside a tent porch? We are up here and a storm comes tonight.
@stove Is it normal that the {item} smell{s} of gas when turned off? It stands in our kitchen right now.
@hard {is} the {item} still safe after a fall from a roof? We climb with {them} {soon}.
Have you {an} in the town store today? My flight goes {soon} and I'd come straight over.
Can I still buy the {item} and collect {them} before the shop shuts tonight? The tour starts at dawn.
@elec {does} the {item} float? The race is {soon} and I have to decide.
"""),
    }
)

LOW_CORES.update(
    {
        "track_order": _lines("""
Just being nosy: how far has {myorder} got? It can take all the time it wants.
No need to hurry, I'd only like to know some time whether the {item} {has} been sent[. {ref}].
"""),
        "late_delivery": _lines("""
{myorder} is {span} late but it's a present for next Christmas, so look into it whenever you have time.
No great harm done, it's for next season, but the {item} should have been here on {date}[. {ref}]. Could you \
check at some point?
"""),
        "lost_parcel": _lines("""
Marked as delivered, never got here[, {ref}]. I won't be needing the {item} until next year, so there's no hurry \
in tracing it.
"""),
        "refund_request": _lines("""
Whenever it suits you, could I have the price difference on the {item} paid back?[ {ref}]
I'd like to give the {item} back for a refund, take your time with it, I'm not short of money[. {ref}].
"""),
        "refund_status": _lines("""
Curious rather than worried: when does the refund that you approved[ for {ref}] get to me? Next month is fine too.
My return was accepted on {date}. The money can wait, I just want to know it's not forgotten[. {ref}].
"""),
        "exchange_item": _lines("""
@size I won't wear the {item} before next winter, so at your leisure: could I swap {size} for {size2}?[ {ref}]
"""),
        "damaged_item": _lines("""
@gear The {item} came and {fault}, but I'll only use {them} next summer, so send another whenever you like[. {ref}].
"""),
        "warranty_claim": _lines("""
@gear {failed} after {use}. The season is over for me, so the repair of the {item} may take as long as it takes[. \
{ref}].
"""),
        "wrong_item": _lines("""
You sent {an2}, I'd ordered {an}. It's for next year, so there's no hurry to put it right[. {ref}].
"""),
        "change_order": _lines("""
It won't be shipped until next season anyway, so in your own time: please change the address on {myorder} to {addr}.
"""),
        "cancel_order": _lines("""
My preorder for next year[, {ref}]: please cancel it. No hurry, there are months to go.
"""),
        "product_question": _lines("""
Just curious, who sews your {items}?
For a trip next summer: {is} the {item} the right choice in the far north?
Idle question: {does} the {item} lose strength when {it} {is} stored in a cellar?
"""),
    }
)

# ---------------------------------------------------------------- openings, closings
OPENINGS = _lines("""
Hi,
Hello,
Hello there,
Good morning,
Good evening,
Good afternoon to you all,
Hiya,
Hey,
Hey guys,
Dear Sir or Madam,
Dear Tarn & Tussock,
Dear customer service,
To whom it may concern,
Hi Tarn & Tussock,
Hi team,
Dear all,
Morning,
Evening all.
Greetings from the hills.
Me again.
Right.
Sorry to bother you.
I hope you can help me.
I hope you are well.
Hope somebody reads this.
Quick message from the train.
One question.
Hi folks,
So, here's the thing.
This is my second mail.
I tried the chat first but it froze.
My daughter is typing this for me.
Not sure if this is the right address.
Hello, customer of many years here.
I couldn't get through on the phone.
Excuse my English please.
First of all, nice shop.
I'll keep it short.
Ok so
Could somebody help?
Help needed.
Good day,
I write on behalf of our hiking club.
Hallo,
""")

CLOSINGS = _lines("""
Thanks
Thanks!
Thank you.
Many thanks
Thanks in advance.
Thanks a lot!
Cheers
Cheers, {name}
Ta
Best, {name}
Kind regards, {name}
Best wishes, {name}
Yours sincerely, {name}
Regards
Regards, {name}
With kind regards
Thank you for your help.
Thanks for looking into it.
Looking forward to your reply.
I look forward to hearing from you.
Hope to hear from you.
Please let me know.
Let me know, thanks.
Thank you and bye
Greetings, {name}
Have a nice day.
Yours, {name}
That's all. Thank you.
I'd be grateful for an answer.
Please confirm.
Much obliged, {name}
Bye for now, {name}
Thank you kindly, {name}
All the best
Love your shop otherwise, {name}
Sent from my phone
x {name}
Please write back to this address.
{name}, scout leader
{name}, purchasing
Thanks, {name} and family
Please answer by mail and not by phone, I'm hard of hearing.
""")

# side remarks without any bearing on intent or urgency
REMARKS = _lines("""
It has rained here all week by the way.
Your new website is a bit fiddly on a phone.
My husband says I own too much gear already.
I rang twice yesterday and only got the music.
The chap in your store was very kind to us last time.
I've been a customer for about <ten|six|twelve> years.
We are all getting over a cold here, so forgive the typing.
The catalogue you sent in spring was lovely.
The dog has taken over my old tent, so you see how it goes.
I must say the podcast with the hut warden was a good idea.
Parking at your town store is a nightmare, but that's another story.
I'm not very good with computers.
I am writing this on the bus.
My knees are not what they were but I still get up the fells.
A friend of mine swears by your shop.
Your chat robot sent me round in circles.
We have two small kids and walk every weekend.
Nice touch with the hand-written card, by the way.
I had to look for this address for a while.
Last year I bought a pan set from you and it's still going strong.
The stickers you put in make my son very happy.
I live out on a farm, so shops are far away.
It's windy up here as always.
I do voluntary work with the mountain rescue.
The newsletter comes three times a week, could be fewer.
My account shows my name wrongly spelt but never mind that.
Your hold music is quite good actually.
I used to work in a gear shop myself, so I know what it's like.
I read all of your help page first.
The heating here is broken, so I type with gloves on.
My cat is walking over the keyboard.
I teach geography, hence the interest in hills.
Sorry for the long mail.
I live on the island, the one with the lighthouse.
The new shop window in town looks great.
I'm writing for my mother, who has no email.
There was a nice article about you in the local paper.
I've told the same thing to the chat robot.
Normally I shop in town, but they closed.
My neighbour and I share an account.
The price was very fair, I'll give you that.
We loved the walking evening you put on in {month}.
""")

# back stories about the product: true whether or not it has been received (not for product_question)
STORIES = _lines("""
I picked the {item} because of the good reviews.
{Person} talked me into buying the {item}.
I saved up for the {item} for months.
It's the first time I bought {an} without trying.
A guide on our last tour recommended the {item} to me.
I paid with a gift card from my colleagues, by the way.
I chose yours over two other shops.
The {item} {was} meant to go with {an2} that I've had for years.
We are a family of four and everyone gets new kit this year.
My {item2} {from_you} still does its job, so I came back for more.
I told the whole story to your chat already.
{Person} laughs at me for spending so much on {an}.
I'm new to hiking, so forgive me if I ask in the wrong place.
I paid straight away, as always.
I ordered late in the evening with a glass of wine, I admit.
At our age one thinks twice before buying {an}.
Your colleague in the shop advised me well when I chose.
My whole walking club buys from you.
I sent the same message through the contact form but got only a robot answer.
You were recommended by {person}.
It was the last {unit} you had, the page said.
I ordered it on my phone and paid by card.
The {item} {is} for {person}, not for me.
I've compared {items} for weeks, believe me.
I had a voucher left from my birthday, that's how I came to you.
We do a long walk every year, always the same six people.
{Person} and I share the hobby and the cupboard is full.
Your shop was the only one that had the {item}.
I looked at the {item} three times before I pressed the button.
I got the tip from a hut warden.
My old {unit} went to the charity shop.
I first saw the {item} in your catalogue.
Most of my kit is from you, I just counted.
My feet and I have done two thousand miles together, so I'm fussy.
I run a small climbing wall and buy such things now and then.
The {item} {was} on my wish list for ages.
""")
STORIES_PRODUCT = _lines("""
I mostly walk on moorland.
{Person} wants one too.
I've read the page twice and didn't find it.
My old one has served me for ages.
The reviews don't agree on it.
I sleep badly when it's cold, that's why I ask.
We are two adults and a tall teenager.
I'm comparing three of them.
I looked in the catalogue first.
I'm rather tall, if that matters.
The video on your page has no sound.
I don't like buying things I then have to send back.
""")

# side remarks that use the words of other intents (about some other, finished affair)
CROSS_REMARKS = _lines("""
The refund I had last year went smoothly, so I'm hopeful.
An exchange in {month} took you two days, that was great.
Years ago a tent from you leaked and you replaced it without fuss.
My last order went missing for a while, but it turned up in the end.
(The late parcel in {month} is settled, this is something else.)
The warranty on my old boots ran out ages ago, not that it matters here.
I once cancelled something with you and that went fine.
My sister got the wrong colour from you last year and laughed about it.
My previous order was quick, two days to the door.
A question of mine about sizes was answered very nicely in {month}.
My old stove is at the repair shop, but not yours.
The other order, a map, got here all right.
I have nothing to say against your courier.
Another shop lost two of my parcels last year, so I moved to you.
The returns label printed nicely last time, just saying.
My brother had to change his address three times with his order and you stayed friendly.
""")

NO_ORDER_NOTES = _lines("""
I don't have the order number to hand.
Can't find my order number, sorry.
I've deleted the mail with the order number.
Order number? No idea, it was bought under my email.
It was ordered as a guest, so no number I think.
You should find it under my name.
""")

# ---------------------------------------------------------------- urgency high
SOON = [
    "tomorrow",
    "tomorrow morning",
    "the day after tomorrow",
    "in two days",
    "tonight",
    "this Saturday",
    "this Friday",
    "first thing tomorrow",
    "in 48 hours",
    "tomorrow night",
    "on Saturday, that's two days from now",
]

HIGH_GOODS = _lines("""
We leave for the mountains {soon}.
I set off {soon} and can't go without it.
Our flight goes {soon}.
The trip starts {soon}, that's the problem.
My hut is booked and paid for {soon}.
The ferry leaves {soon} and there's only one a week.
I'm guiding a group {soon}.
The school camp starts {soon}.
My daughter's scout camp begins {soon}.
I start my long walk {soon}.
We get married on a hilltop {soon} and this is part of it.
I need it by {soon_by} at the very latest, that's when the bus goes.
It's my son's birthday {soon} and that's his present.
The race is {soon} and kit check won't let me in without.
The course starts {soon} and it's on the list of compulsory kit.
I am due on the rescue rota {soon} and need it there.
My first night shift outdoors is {soon}.
Snow is forecast from tonight and the child has nothing else to wear.
There's a storm warning for tomorrow and we're living outdoors at present.
We are already at the campsite and tonight is the first night.
I'm in a rented van with no heating and it's minus five tonight.
By {soon_by} I'm out of the country for half a year.
My expedition team meets {soon}.
The train goes at seven tomorrow.
I'm off on a three-week trek {soon}.
If it can't be solved by {soon_by} I have to buy another elsewhere before we go.
My permit for the trail is valid only for a start {soon}.
Departure is {soon}.
We're off {soon}!
leaving {soon}
The festival begins {soon} and everything is packed but this.
I've a climbing exam {soon}.
Our relay team starts {soon}.
My dad turns seventy {soon} and it is his gift.
The boat picks us up {soon}.
I hand it over as a leaving present {soon}.
I'll be on a glacier {soon}, so please be quick.
The kids' hike with the whole class is {soon}.
Forecast says minus twelve for tomorrow night and we sleep out.
I am only in the country until {soon_by}.
The film shoot on the ridge is {soon}.
Taxi to the airport comes {soon}.
We start up the north route {soon}, weather window and all.
Duke's award assessment is {soon}, no kit no badge.
My holiday starts {soon}, as it happens.
There is no shop where I'm going, and I go {soon}.
I work outside and the cold snap comes tonight.
The volunteers need to be kitted out by {soon_by}.
""")

HIGH_MONEY = _lines("""
My rent is due {soon} and without this money it bounces.
I'm overdrawn because of it and the bank charges me every day from tomorrow.
The deadline to dispute it with my card company ends {soon}.
I need the money by {soon_by} to pay the electricity, they'll cut us off.
My account is empty and I get paid only in ten days, I can't buy food.
The card bill is taken {soon} and I can't cover it.
I've to buy a replacement before our trip {soon} and need the money for it.
The bank says I must open the chargeback within two days.
My car insurance comes off {soon} and there is nothing in the account.
The direct debit for the flat goes {soon} and will fail.
Our club's books close {soon} and after that it can't be posted.
The account it goes to will be closed {soon}.
I have a court date over unpaid bills {soon}, so this sum matters.
The nursery fees are due {soon} and I'm short by exactly this much.
""")

HIGH_CANCEL = _lines("""
I placed it <ten minutes|a quarter of an hour|five minutes> ago.
Your mail says it ships this afternoon.
It's due to be handed to the courier tonight.
The status has just jumped to "packing", so please be quick.
The money is taken tonight and my account would go into the red.
I fly out tomorrow and nobody would be there to take it in.
It leaves your warehouse at four today, the tracker says.
We move out tomorrow and the parcel would land with strangers.
I only clicked the button a moment ago.
According to the app it goes on the van in an hour.
My card is charged at midnight and the rent goes tomorrow.
I can still see "dispatch: today, 17:00".
""")

HIGH_CHANGE = _lines("""
I placed it <ten minutes|a quarter of an hour|five minutes> ago.
The mail says that it ships this afternoon.
It goes out tonight according to the app.
We move out tomorrow and the parcel would go to strangers.
I leave {soon}, so it has to be done before.
The status has just jumped to "packing".
It leaves your warehouse at four today, I'm told.
The courier picks it up tomorrow at eight.
I noticed it a minute after I pressed pay.
From {soon_from} there's nobody at the old place.
It is due to be handed to the driver within the hour.
It's a birthday surprise for {soon} and must come out right.
""")

HIGH_PRODUCT = _lines("""
We leave {soon}, that's why I ask.
I have to decide today, the trip starts {soon}.
I'm standing in the queue at your store, so a quick answer would help.
My flight goes {soon}.
The course starts {soon} and I must bring the right thing.
The offer ends tonight at midnight.
We are out in the snow as I write and need to know before dark.
The race is {soon}.
I'm picking up the group {soon}.
Storm warning for tonight, so I'd like to know before then.
I pack {soon}.
My ferry goes {soon} and your store is on the way.
""")

# ---------------------------------------------------------------- urgency low
LOW_ANY = _lines("""
No rush at all.
There's no hurry.
Whenever suits you.
Whenever you get round to it.
No hurry from my side.
Answer whenever you have a quiet moment.
It isn't urgent in the least.
Take your time.
Take all the time you need.
Any time this month is fine.
I'm in no hurry whatsoever.
Not pressing.
Nothing urgent.
Next week or the week after is early enough.
I know you are busy, so this can wait.
Do it when things calm down at your end.
This can wait until after the holidays.
no rush tho
There's all the time in the world.
I can wait, I'm retired.
Just when you've time.
A reply some time next month will do.
No stress.
Please deal with the pressing cases first, mine can wait.
Put me at the bottom of the pile.
In your own time.
At your leisure.
It won't matter if it takes a few weeks.
Doesn't have to be today, or this week.
no hurry
When you find the time.
Low priority for me.
Not that it's urgent.
Answer at your convenience, I'm patient.
""")

LOW_GOODS = _lines("""
It is for next summer.
We don't go until next year.
I only need it next season.
My trip isn't until the far end of next year.
It's a present for Christmas and that's ages away.
I have an old one that does for now, so no hurry.
Our tour is half a year off.
It will only lie in the cupboard until spring anyway, no hurry.
It's for the baby, and the baby can't walk yet, so plenty of time.
I don't need it this year at all.
""")

LOW_PRODUCT = _lines("""
Just curious.
I'm only asking out of interest.
It's for next summer, so plenty of time.
I won't buy before next year.
Just planning ahead for next season.
Purely out of curiosity.
The trip is a year away.
Just daydreaming about a big tour some day.
We're still saving up, so no hurry.
I'm just looking around for now.
""")

# ---------------------------------------------------------------- tone only (no effect on urgency)
TONE = _lines("""
I am FURIOUS.
This is urgent!!!
URGENT
ASAP please.
Sort this out immediately!
I need an answer NOW.
I'm absolutely livid.
What kind of shop is this?
This is a disgrace.
Unbelievable.
I've had it up to here.
This really won't do.
Are you even reading these mails?
Please deal with this at once.
I expect an immediate reply.
Top priority please!!
Hurry up!
asap asap asap
Honestly, what a joke.
I'm fed up to the back teeth.
My patience is at an end.
Third time of asking!!!
This is the worst service I have ever had.
I demand a manager.
Fix it. Today.
Reply straight away.
Bloody useless.
I will tell everyone I know about this.
One star from me.
Kindly treat this as URGENT.
PLEASE HURRY
Are you all asleep over there?
Very disappointed.
What a shambles.
Quickly please!!!
I'm really angry now.
Do your job.
I'm not going to ask again.
high importance!
Need this solved right away.
""")
TONE_SOFT = _lines("""
ASAP please.
Quick answer please!
Please reply right away.
asap pls
Urgent!!
Need to know asap
Please hurry with the answer.
""")

# a date further off: neither pressing nor "no hurry"
NORMAL_DATES = _lines("""
We leave in two weeks.
The trip is in about three weeks.
I'd like it settled before the end of the month.
We go on the {far} of next month.
The course begins in a fortnight.
I would like to have it done within the next week or two.
Our holiday begins in sixteen days.
It should be sorted by the time we go, and that is in twelve days.
The birthday is in three weeks.
My next tour is in two weeks' time.
""")

# ---------------------------------------------------------------- clauses that carry the order number
ORDER_START = _lines("""
{Ref}.
{Ref}:
Re {ref}.
Re: {ref}
This is about {ref}.
It's about {ref}.
About {ref}:
I'm writing about {ref}.
Regarding {ref},
Concerning my {ref}.
{Ref} -
Subject: {ref}
My order number is {o}.
""")
ORDER_END = _lines("""
My order number is {o}.
Order number {o}.
The order number is {o}.
{Ref}.
{Ref}
It's {ref}.
That's {ref}.
The number on the confirmation is {o}.
Number of the order: {o}.
You'll find it under {ref}.
It was {ref}, if you need that.
({ref})
I mean {ref}.
In case you need it: {ref}.
The receipt says {ref}.
Order no.: {o}
""")
ORDER_SIGN = _lines("""
{name} / {ref}
{name}, {ref}
{name} ({ref})
{name}\\n{Ref}
{Ref}
{name}\\nOrder number: {o}
""")
SECOND_ORDER = _lines("""
My other order, {o2}, is all right.
(Order {o2} has nothing to do with it.)
Not to be mixed up with order {o2}, which came last month.
The older order {o2} is settled.
I've a second order with you, {o2}, that one is fine.
Order {o2} from spring was perfect by the way.
""")

# ---------------------------------------------------------------- numbers that are no order numbers
DISTRACT_ANY = _lines("""
My customer number is {member}.
Customer no. {member}.
I'm member {member} of your club.
Loyalty card {member}.
You can ring me on {phone}.
My phone: {phone}
Tel. {phone}
Call me on {phone} if anything is unclear.
Member no {member}
Invoice {inv}.
The invoice number is {inv}.
My postcode is {post}.
I paid {price}.
Your ticket number from the chat was {ticket}.
Ref of my last mail: case {ticket}.
The article code is {art}.
It's art. {art} in the catalogue.
Model {art}, I think.
Item code {art}.
I used voucher {voucher}.
""")
DISTRACT_TRACK = _lines("""
The tracking number is {track}.
Tracking {track}.
Parcel number {track}.
{track} is what the carrier gave me.
Tracking code: {track}
The shipment has the number {track}.
Consignment {track}.
The card through the door says {track}.
Courier ref {track}.
""")
DISTRACT_RETURN = _lines("""
RMA {rma}.
My return number is {rma}.
Return slip {rma}.
The return slip says {rma}.
Return label {track}.
RMA no. {rma}
I posted it with tracking {track}.
Credit note {inv}.
""")
DISTRACT_PRODUCT = _lines("""
It's art. {art} in the catalogue.
Model {art}, I think.
Item code {art}.
The article number is {art}.
Page {num2} of your catalogue.
The one for {price}.
I'm member {member} of your club.
You can ring me on {phone}.
(art. no. {art})
""")

QUOTES = _lines("""
> Thank you for your message. We will reply in the order received.
> Dear customer, thank you for shopping with Tarn & Tussock.
> This mailbox is watched from Monday to Friday.
> We've got your message and will be in touch.
""")

EMOJI = {
    "high": ["😬", "🙏", "😰", "⛺", "🙏🙏", "😱"],
    "normal": ["🙂", "😕", "🤔", "🥾", "😩", "👍", "😅", "🙄"],
    "low": ["😊", "🙂", "☺️", "👍", "🌲"],
    "tone": ["😡", "🤬", "😤", "👎"],
}

ABBREVIATIONS = {
    "please": "pls",
    "you": "u",
    "thanks": "thx",
    "tomorrow": "tmrw",
    "your": "ur",
    "because": "cos",
    "before": "b4",
    "message": "msg",
    "about": "abt",
    "weeks": "wks",
    "and": "&",
    "tonight": "2nite",
    "people": "ppl",
    "something": "smth",
    "though": "tho",
    "are": "r",
    "okay": "ok",
    "with": "w",
    "number": "no",
    "minutes": "mins",
    "month": "mth",
    "to": "2",
}
