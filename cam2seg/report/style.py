"""How a report looks: its colours and its style sheet, for a phone, a desk and paper."""

INK, MUTED, LINK = "#1f2933", "#52606d", "#0b4f8a"
PAPER, SHADE, HEAD, RULE = "#ffffff", "#f5f7fa", "#e4e9ef", "#7b8794"
# Each colour of text with the colours it stands on.
TEXT_ON = ((INK, PAPER), (INK, SHADE), (INK, HEAD), (MUTED, PAPER), (MUTED, SHADE), (LINK, PAPER),
           (LINK, SHADE))

CSS = f"""
*{{box-sizing:border-box}}
html{{color-scheme:light;-webkit-text-size-adjust:100%}}
body{{margin:0 auto;padding:1rem;max-width:75rem;background:{PAPER};color:{INK};
 font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
 overflow-wrap:anywhere}}
h1{{font-size:1.6rem;line-height:1.2;margin:.5rem 0}}
h2{{font-size:1.3rem;line-height:1.25;margin:2.5rem 0 .5rem;padding-top:.75rem;
 border-top:2px solid {INK}}}
h3{{font-size:1.05rem;line-height:1.3;margin:1.5rem 0 .5rem}}
p{{margin:.4rem 0;max-width:46rem}}
p.warning{{border-left:4px solid {INK};padding-left:.6rem;font-weight:600}}
p.note,figcaption,caption,.legend{{color:{MUTED};font-size:.9rem}}
a{{color:{LINK}}}
nav ul{{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:1rem 0;padding:.6rem .8rem;
 list-style:none;background:{SHADE}}}
nav a{{display:inline-block;padding:.2rem 0}}
:focus-visible{{outline:3px solid {LINK};outline-offset:2px}}
.scroll{{overflow-x:auto;max-width:100%;margin:.75rem 0}}
table{{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}}
caption{{text-align:left;padding:.2rem 0;font-weight:600;color:{INK}}}
caption span{{position:sticky;left:0;display:inline-block;max-width:calc(100vw - 2rem)}}
th,td{{padding:.3rem .6rem;border-bottom:1px solid {HEAD};text-align:left;vertical-align:top}}
thead th{{background:{HEAD};vertical-align:bottom;white-space:nowrap}}
tbody th{{font-weight:600}}
.scroll th,.scroll td{{overflow-wrap:break-word}}
.scroll th:first-child{{position:sticky;left:0;min-width:min(13rem,36vw);max-width:18rem}}
.scroll tbody th{{background:{PAPER}}}
.scroll td.text{{min-width:9rem;overflow-wrap:anywhere}}
td.number,th.number{{text-align:right;white-space:nowrap}}
tr.other,.scroll tr.other th{{background:{SHADE}}}
tr.other th{{font-weight:400}}
.listing{{table-layout:fixed;width:100%;max-width:60rem;margin:.75rem 0;font-size:.85rem}}
.listing th{{width:38%;font-weight:400}}
.charts{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr));
 gap:1rem;margin:.5rem 0}}
.panels{{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(46%,11rem),1fr));
 gap:.6rem;margin:.5rem 0 1.25rem}}
.panels.wide{{grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}}
figure{{margin:0;min-width:0}}
figure svg,figure img{{display:block;width:100%;height:auto}}
figure img{{background:{HEAD};border:1px solid {RULE}}}
figure details{{margin:0}}
figure summary{{display:block;padding:0;cursor:zoom-in}}
figure summary::-webkit-details-marker{{display:none}}
figure:has([open]){{grid-column:1/-1}}
figure [open] summary{{cursor:zoom-out}}
figure [open] img{{width:min(100%,45rem);max-height:90vh;object-fit:contain}}
figcaption{{margin-top:.2rem;line-height:1.35}}
svg text{{font:13px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
 fill:{INK}}}
.legend{{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.4rem 0;padding:0;list-style:none}}
.legend svg{{width:2rem;height:.9rem;vertical-align:-.1rem;margin-right:.35rem}}
details{{margin:.6rem 0}}
summary{{cursor:pointer;font-weight:600;padding:.3rem 0}}
@media print{{
 @page{{margin:14mm}}
 *{{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
 body{{max-width:none;padding:0;font-size:10pt}}
 nav{{display:none}}
 .scroll{{overflow:visible}}
 table{{font-size:8pt}}
 .panels{{grid-template-columns:repeat(5,1fr)}}
 .panels.wide{{grid-template-columns:repeat(3,1fr)}}
 .charts{{grid-template-columns:repeat(3,1fr)}}
 figure:has([open]){{grid-column:auto}}
 figure [open] img{{width:100%}}
 figure,tr,summary{{break-inside:avoid}}
 h2,h3,caption,.legend,summary,p.note{{break-after:avoid}}
 details::details-content{{content-visibility:visible;block-size:auto}}
}}
"""
