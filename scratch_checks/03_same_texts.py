"""All test messages: texts of batches of four (in order, unequal lengths) against one at a time."""
from common import FOLDER, Batch, chats, runtime, together

served = runtime.GenAIRuntime(FOLDER)
alone = [served.generate(chat) for chat in chats]
batch, found = Batch(served), []
for at in range(0, len(chats), 4):
    found += together(batch, served, chats[at : at + 4])
other = [i for i in range(len(chats)) if alone[i] != found[i]]
print(len(other), "of", len(chats), "differ")
for i in other[:5]:
    print(alone[i], "|", found[i])
fresh = [together(batch, served, [chats[i]])[0] == alone[i] for i in other[:20]]
print("of these, the same with a batch of one:", sum(fresh), "of", len(fresh))
