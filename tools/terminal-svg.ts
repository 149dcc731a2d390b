// Draws a terminal's screen as SVG: reads its text lines on stdin, writes the picture to stdout.
// The README's picture: tmux capture-pane -p -t SESSION | node tools/terminal-svg.ts 'npm start' > docs/terminal.svg

const [title = ''] = process.argv.slice(2);
let text = '';
for await (const chunk of process.stdin) text += String(chunk);
const lines = text.replace(/\s+$/, '').split('\n');
const columns = Math.max(60, ...lines.map((l) => l.length));
const [charWidth, lineHeight, pad, bar] = [8.43, 18, 14, 30];
const width = Math.ceil(columns * charWidth + 2 * pad);
const height = lines.length * lineHeight + 2 * pad + bar;
const encode = (s: string): string => s.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
const rows = lines.map((l, i) => `<text x="${pad}" y="${bar + pad + (i + 0.75) * lineHeight}">${encode(l)}</text>`);
process.stdout.write(`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">
<title>${encode(title)}</title>
<rect width="100%" height="100%" rx="8" fill="#16181d"/>
<rect width="100%" height="${bar}" rx="8" fill="#2a2e37"/>
<g fill="#5b616e"><circle cx="18" cy="15" r="5"/><circle cx="36" cy="15" r="5"/><circle cx="54" cy="15" r="5"/></g>
<text x="${width / 2}" y="20" fill="#9aa1ae" font-family="sans-serif" font-size="12" text-anchor="middle">${encode(title)}</text>
<g fill="#d6dae2" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14" style="white-space: pre">
${rows.join('\n')}
</g>
</svg>
`);
