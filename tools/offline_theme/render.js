// A theme for Jupyter Book 2 that writes the pages itself: no server, no network, nothing to install.
// mystmd (1.11 and later, `build.render` in template.yml) says in CONTENT_CDN where the parsed pages are, and in
// BUILD_DIRECTORY where the HTML goes. A kind of node, or of output, that is not named here ends the build.
// What it has not: a search, a kernel, exports. Formulas are the browser's MathML.
const fs = require('fs');
const path = require('path');

const { CONTENT_CDN, BUILD_DIRECTORY } = process.env;
const VENDOR = path.join(__dirname, '..', '..', 'book', '_static', 'vendor', 'embed.js'); // `make book` fetches it
const VIEW = 'application/vnd.jupyter.widget-view+json';
const STATE = 'application/vnd.jupyter.widget-state+json';

const escaped = (text) => String(text ?? '').replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const json = (value) => JSON.stringify(value).replaceAll('<', '\\u003c'); // inside a script element

// Folder of a page, from the top: '' for the first page, 'deployment' for a chapter, 'deployment/4-02' for a section
const folder = (slug, first) => (slug === first ? '' : slug.replaceAll('.', '/').replace(/\/index$/, ''));
const link = (page, url) => {
  if (/^([a-z]+:|#)/i.test(url)) return url;
  if (!url.startsWith('/')) throw new Error(`${page.slug} links to ${url}, which is no page of the book`);
  const [where, anchor] = url.slice(1).split('#');
  return page.up + (where ? `${where}/` : '') + 'index.html' + (anchor ? `#${anchor}` : '');
};

const PLAIN = {
  block: 'div', paragraph: 'p', strong: 'strong', emphasis: 'em', listItem: 'li', blockquote: 'blockquote', tableRow: 'tr', details: 'details',
  summary: 'summary', div: 'div', delete: 's', subscript: 'sub', superscript: 'sup', definitionList: 'dl', definitionTerm: 'dt',
  definitionDescription: 'dd', container: 'figure', caption: 'figcaption', admonition: 'aside', admonitionTitle: 'p', outputs: 'div',
};

const NODES = {
  root: inside,
  text: (n) => escaped(n.value),
  comment: () => '',
  break: () => '<br>',
  thematicBreak: () => '<hr>',
  html: (n) => n.value,
  heading: (n, page) => `<h${n.depth} id="${escaped(n.html_id)}">${inside(n, page)}</h${n.depth}>`,
  code: (n) => `<pre><code>${escaped(n.value)}</code></pre>`,
  inlineCode: (n) => `<code>${escaped(n.value)}</code>`,
  inlineMath: mathML,
  math: mathML,
  list: (n, page) => (n.ordered ? `<ol start="${n.start ?? 1}">${inside(n, page)}</ol>` : `<ul>${inside(n, page)}</ul>`),
  table: (n, page) => `<table>${inside(n, page)}</table>`,
  tableCell: (n, page) => (n.header ? `<th>${inside(n, page)}</th>` : `<td>${inside(n, page)}</td>`),
  image: (n, page) => `<img src="${escaped(page.file(n.url))}" alt="${escaped(n.alt)}">`,
  link: (n, page) => `<a href="${escaped(link(page, n.url))}">${inside(n, page)}</a>`,
  crossReference: (n, page) => `<a href="${escaped((n.remote ? link(page, n.url) : '') + (n.html_id ? `#${n.html_id}` : ''))}">${inside(n, page)}</a>`,
  citeGroup: inside,
  cite: (n, page) => `<a href="${n.url ? escaped(n.url) : `#cite-${escaped(n.label)}`}">${inside(n, page)}</a>`,
  bibliography: (n, page) => `<ol>${page.cited.map(([key, entry]) => `<li id="cite-${escaped(key)}">${entry.html}</li>`).join('')}</ol>`,
  output: (n, page) => output(n.jupyter_data, page),
};

function inside(node, page) {
  return (node.children ?? []).map((child) => html(child, page)).join('');
}

function html(node, page) {
  if (NODES[node.type]) return NODES[node.type](node, page);
  const tag = PLAIN[node.type];
  if (!tag) throw new Error(`the offline theme does not know nodes of the kind ${node.type}`);
  return `<${tag} class="${node.type}">${inside(node, page)}</${tag}>`;
}

// KaTeX sends MathML and a drawing of the same formula. The drawing needs fonts; every browser of today reads MathML.
function mathML(node) {
  const found = /<math[^]*?<\/math>/.exec(node.html ?? '');
  if (!found) throw new Error(`no MathML for the formula ${node.value}`);
  return found[0];
}

// What a code cell has put out: the richest form that a page can show
function output(told, page) {
  if (told.output_type === 'stream') return `<pre class="output">${escaped(told.text)}</pre>`;
  const data = told.data ?? {};
  const text = (kind) => data[kind].content ?? fs.readFileSync(path.join(page.site, 'public', data[kind].path), 'utf-8');
  if (data[VIEW] && page.widgets) return `<div><script type="${VIEW}">${json(JSON.parse(text(VIEW)))}</script></div>`;
  const alt = told.metadata?.['image/png']?.alt ?? '';
  if (data['image/png']) return `<img src="${escaped(page.file(data['image/png'].path))}" alt="${escaped(alt)}">`;
  if (data['text/html']) return text('text/html');
  if (data['text/plain']) return `<pre class="output">${escaped(text('text/plain'))}</pre>`;
  throw new Error(`the offline theme does not know outputs of the kinds ${Object.keys(data)}`);
}

// The list of all pages: the toc is flat, each entry with its level
function navigation(project, page) {
  let list = '';
  let depth = 0;
  const entries = [{ slug: project.index, title: project.title, level: 1 }, ...project.pages];
  for (const { slug, title, level } of entries) {
    for (; depth < level; depth++) list += '<ul>';
    for (; depth > level; depth--) list += '</ul>';
    if (level > 2 && !page.slug.startsWith(slug.split('.')[0] + '.')) continue; // sections of the chapter at hand only
    const here = slug === page.slug ? ' aria-current="page"' : '';
    const name = escaped(title);
    list += `<li>${slug ? `<a href="${page.up}${path.posix.join(folder(slug, project.index), 'index.html')}"${here}>${name}</a>` : `<b>${name}</b>`}</li>`;
  }
  return list + '</ul>'.repeat(depth);
}

function written(project, page, content) {
  const slugs = [project.index, ...project.pages.map((entry) => entry.slug).filter(Boolean)];
  const at = slugs.indexOf(page.slug);
  const step = (slug, name) => (slug ? `<a href="${page.up}${path.posix.join(folder(slug, project.index), 'index.html')}">${name}</a>` : '<span></span>');
  const title = escaped(content.frontmatter.title ?? project.title);
  const widgets = page.widgets ? `<script type="${STATE}">${json(page.widgets)}</script><script src="${page.up}embed.js"></script>` : '';
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title><link rel="icon" href="data:,"><link rel="stylesheet" href="${page.up}style.css"></head>
<body><nav aria-label="Pages">${navigation(project, page)}</nav>
<main><h1>${title}</h1>${html(content.mdast, page)}
<footer>${step(slugs[at - 1], '← before')}${step(slugs[at + 1], 'next →')}</footer></main>${widgets}</body></html>
`;
}

async function main() {
  const get = async (where) => (await fetch(CONTENT_CDN + where)).json();
  const { projects: [project] } = await get('/config.json');
  const site = path.join(BUILD_DIRECTORY, '..', 'site');
  const player = fs.existsSync(VENDOR);
  fs.mkdirSync(BUILD_DIRECTORY, { recursive: true });
  fs.copyFileSync(path.join(__dirname, 'style.css'), path.join(BUILD_DIRECTORY, 'style.css'));
  if (player) fs.copyFileSync(VENDOR, path.join(BUILD_DIRECTORY, 'embed.js'));
  for (const slug of [project.index, ...project.pages.map((entry) => entry.slug).filter(Boolean)]) {
    const content = await get(`/content/${slug}.json`);
    const where = folder(slug, project.index);
    const up = where ? '../'.repeat(where.split('/').length) : '';
    const file = (url) => {
      if (!url.startsWith('/')) return url;
      fs.copyFileSync(path.join(site, 'public', url), path.join(BUILD_DIRECTORY, path.basename(url)));
      return up + path.basename(url);
    };
    const cited = Object.entries(content.references?.cite?.data ?? {});
    const page = { slug, up, file, site, cited, widgets: player && content.widgets?.[STATE] };
    fs.mkdirSync(path.join(BUILD_DIRECTORY, where), { recursive: true });
    fs.writeFileSync(path.join(BUILD_DIRECTORY, where, 'index.html'), written(project, page, content));
  }
}

main().catch((error) => {
  console.error(`⛔ ${error.message}`);
  process.exit(1);
});
