"""The style sheet of the report page: light and dark, wide and narrow, screen and print."""

CSS = """\
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --ink: #22272e; --soft: #5d6672; --line: #dfe2e6; --card: #ffffff; --accent: #31688e;
  --good: #1d7a4d; --bad: #b3422f; --none: #6b7480;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16191d; --ink: #e2e5e9; --soft: #9aa4b0; --line: #31373f; --card: #1d2126; --accent: #7fb7dd;
    --good: #58c48c; --bad: #ec8674; --none: #8d97a3;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 2.5rem 1.25rem 5rem; }
h1, h2, h3 { line-height: 1.2; text-wrap: balance; }
h1 { font-size: 2.1rem; margin: 0 0 .2rem; letter-spacing: -.015em; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
.sub { color: var(--soft); margin: 0 0 1.4rem; }
.lead { font-size: 1.1rem; max-width: 52rem; margin: .5rem 0; }
.lead strong { color: var(--accent); font-weight: 650; }
.note { border-left: 3px solid var(--bad); padding: .2rem .9rem; color: var(--soft); max-width: 52rem;
  margin: .8rem 0; }
.fine { font-size: .85rem; color: var(--soft); max-width: 58rem; }
td .fine { margin: .3rem 0 0; }
.scroll { overflow-x: auto; margin: .8rem 0; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .62rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
th { font-weight: 600; color: var(--soft); font-size: .8rem; vertical-align: bottom; }
.n { text-align: right; }
table.claims td { white-space: normal; min-width: 2rem; }
table.claims td:nth-child(2), table.claims td:nth-child(4) { min-width: 18rem; width: 46%; }
table.claims td:nth-child(1), table.claims td:nth-child(3) { white-space: nowrap; }
ul { margin: .2rem 0; padding-left: 1.1rem; }
td ul { font-size: .84rem; }
.badge { display: inline-block; padding: .1rem .6rem; border-radius: 999px; border: 1px solid currentColor;
  font-size: .8rem; font-weight: 600; }
.badge.holds { color: var(--good); }
.badge.does-not-hold { color: var(--bad); }
.badge.not-tested { color: var(--none); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1.5rem; align-items: start; }
figure { margin: 0; padding: .8rem; background: #fff; color: #22272e; border: 1px solid var(--line);
  border-radius: 8px; }
figure.wide { grid-column: 1 / -1; }
figure img { display: block; width: 100%; height: auto; max-width: 1000px; margin: 0 auto; }
figcaption { font-size: .85rem; line-height: 1.45; color: #5d6672; margin-top: .6rem; max-width: 60rem; }
summary { cursor: pointer; color: var(--accent); }
dl { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: .4rem 1.2rem; font-size: .9rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: .78rem; padding: .8rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem;
  } h1 { font-size: 1.7rem; } }
@media print { .scroll { overflow: visible; } body { background: #fff; } }
"""
