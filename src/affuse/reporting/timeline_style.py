"""What the timeline page adds to the house's style sheet, and the script behind its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from affuse.reporting.style import ink_on

RULES = """
.said-first{font-size:clamp(1.7rem,5vw,2.7rem);line-height:1.12;letter-spacing:-.02em;font-weight:700;margin:0 0 10px}
.hero p{max-width:80ch}
.hero p:last-child{margin:0}
.share{display:flex;height:14px;border-radius:7px;overflow:hidden;margin:22px 0 10px;background:var(--line);gap:2px}
.share i{display:block;background:var(--c);min-width:2px}
.share i.unknown{background:var(--hatch)}
.keys{display:flex;flex-wrap:wrap;gap:4px 20px;margin:0;padding:0;list-style:none;font-size:.92rem}
.keys b{font-weight:600}
.swatch{display:inline-block;width:.75em;height:.75em;border-radius:3px;background:var(--c,var(--hatch));
margin-right:.4em;box-shadow:0 0 0 1px color-mix(in srgb,var(--ink) 25%,transparent)}
.box.times{padding:16px 20px 0}
.times .scroll{margin:0 -20px;padding:0 20px}
.plot,.overview{--names:148px}
.plot{position:relative;cursor:crosshair}
:root{--track:color-mix(in srgb,var(--line) 38%,var(--surface));--hatch:repeating-linear-gradient(135deg,
color-mix(in srgb,var(--muted) 55%,transparent) 0 1.5px,transparent 1.5px 7px)}
.lane{display:grid;grid-template-columns:var(--names) minmax(0,1fr);align-items:center;margin-bottom:3px}
.lane .name{position:sticky;left:0;z-index:3;background:var(--surface);padding:0 12px 0 0;font-size:.86rem;
line-height:1.15;
display:flex;flex-direction:column;justify-content:center;align-items:flex-start;min-width:0}
.scroll .lane .name{box-shadow:-20px 0 0 var(--surface)}
.lane small{font-size:.78rem;color:var(--muted)}
.track{position:relative;height:30px;background:var(--track);border-radius:3px}
.track svg{position:absolute;inset:0;width:100%;height:100%;overflow:hidden;border-radius:3px}
.answer .track{height:44px}
.odds .track{height:32px}
.modality .track{height:34px}
.thin .track{height:32px}
.plain .track{background:none}
.overview{margin-bottom:18px}
.overview.fits{display:none}
.thin .track svg{top:7px;height:18px}
.sound .track{height:52px;background:none}
.pictures .track{height:58px;background:none}
.group{position:sticky;left:0;width:max-content;max-width:100%;font-size:.8rem;font-weight:600;color:var(--muted);
margin:16px 0 5px}
.time .track{height:22px;background:none}
.time .track span{position:absolute;top:2px;transform:translateX(-50%);font-size:.78rem;color:var(--muted);
white-space:nowrap}
.time .track span.first{transform:none}
.time .track span.last{transform:translateX(-100%)}
.pictures img{position:absolute;top:0;height:58px;width:calc(var(--w) - 3px);max-width:104px;object-fit:cover;
border-radius:3px;
margin-left:calc(max(0px,var(--w) - 107px) / 2)}
.said{position:absolute;top:0;height:44px;line-height:44px;overflow:hidden;text-align:center;font-size:13px;
font-weight:600;
color:var(--on)}
.said b{display:inline-block;width:1px}
.track:has(.cover){background:var(--hatch)}
path.cover{fill:var(--track)}
path.all{opacity:.42}
path.others{fill:var(--muted)}
path.wave{fill:var(--muted)}
path.voice,path.speaking{fill:var(--accent)}
path.seen{fill:var(--accent);opacity:.28}
path.conflict{fill:var(--warn-ink)}
.against{color:var(--warn-ink);margin-top:3px}
.o0{opacity:.3}.o1{opacity:.48}.o2{opacity:.66}.o3{opacity:.84}.o4{opacity:1}
.cursor{position:absolute;top:0;bottom:0;width:0;border-left:2px solid var(--ink);z-index:2;pointer-events:none;
left:calc(var(--names) + (100% - var(--names))*var(--at,0))}
.legend{margin:14px 0}
.legend i.full{background:var(--muted)}.legend i.half{background:linear-gradient(transparent 50%,var(--muted) 50%)}
.legend i.faint{background:var(--muted);opacity:.4}.legend i.none{background:var(--hatch);border:1px solid var(--muted)}
.readout{position:sticky;bottom:0;z-index:4;background:var(--surface);border-top:1px solid var(--line);margin:0 -20px;
padding:12px 20px 14px;border-radius:0 0 10px 10px;font-size:.92rem}
.readout:not(:has(>.muted:only-child)){min-height:104px}
.readout p{margin:0 0 4px}
.readout .words{display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden;color:var(--muted)}
.readout .numbers{display:flex;flex-wrap:wrap;gap:2px 18px}
.readout .numbers b{margin-left:.35em}
.rests .track{height:32px}
.rests .track i{position:absolute;bottom:0;min-width:3px;background:var(--accent);border-radius:3px 3px 0 0}
.readout ul{display:flex;flex-wrap:wrap;gap:2px 22px;margin:0;padding:0;list-style:none}
.readout li{max-width:100%;white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.readout li b{margin:0 .35em}
.rows .why{margin:0 -20px -20px}
.rows:has(.why) tr>:first-child{padding-left:12px}
.rows:has(.why) .when{width:132px}
.rows tr[tabindex]{cursor:pointer;scroll-margin:20px 0 190px}
.rows tr[tabindex]:focus-visible{outline:2px solid var(--accent);outline-offset:-2px}
.rows tr.asked{background:color-mix(in srgb,var(--line) 55%,transparent)}
.rows tr.influence{background:color-mix(in srgb,var(--accent) 14%,transparent);box-shadow:inset 4px 0 var(--accent)}
.chunk{content-visibility:auto;contain-intrinsic-size:auto 1900px}
.rows table{table-layout:fixed;font-size:.9rem;min-width:0}
.rows th,.rows td{text-align:left;white-space:normal;overflow-wrap:anywhere;padding:7px 14px 7px 0;position:static;
min-width:0;
max-width:none}
.rows .when{width:118px;color:var(--muted);white-space:nowrap}
.rows .what{width:210px}
.rows .parts{width:250px;font-size:.84rem}
.rows .bar{display:block;height:5px;margin-top:4px;background:color-mix(in srgb,var(--line) 60%,transparent);
border-radius:3px;overflow:hidden}
.rows .bar i{display:block;height:100%;background:var(--c)}
.rows .parts>span{display:block}
.rows .chunk+.chunk tr:first-child td{border-top:1px solid var(--line)}
@media (max-width:720px){
.plot,.overview{--names:112px}
.overview.fits.narrow{display:block}
.overview .time .odd{display:none}
.box.times{padding:14px 16px 0}
.times .scroll{margin:0 -16px;padding:0 16px}
.readout{margin:0 -16px;padding:10px 16px 12px}
.readout:not(:has(>.muted:only-child)){min-height:150px}
.fits:not(.narrow) .time .odd{display:none}
.fits:not(.narrow) .pictures .t0,.fits:not(.narrow) .pictures .t2{display:none}
.fits:not(.narrow) .pictures img{width:calc(var(--w)*3 - 3px);margin-left:calc(var(--w)*-1)}
.rows thead{display:none}
.rows table,.rows tbody{display:block}
.rows tr{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1.2fr);padding:9px 0;
border-bottom:1px solid var(--line)}
.rows td,.rows .when,.rows .what,.rows .parts{display:block;width:auto;border:0;padding:0 10px 2px 0}
.rows .chunk+.chunk tr:first-child td{border:0}
.rows .when{grid-column:1/-1}
.rows .text{grid-column:1/-1}
.rows .text:empty{display:none}
.rows .why{margin:0 -16px -16px}
.rows:has(.why) tr{padding-left:12px}
.rows:has(.why) tr>:first-child{padding-left:0;width:auto}
.times .readout bdi.muted{display:none}
}
@media print{
.overview.overview{display:none}
.plot{min-width:0!important;--names:110px}
.cursor,.readout,.lane.rests{display:none}
.box.times{break-inside:auto}
.long .pictures .t0,.long .pictures .t2{display:none}
.long .time .odd{display:none}
.chunk{content-visibility:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""

SCRIPT = """
const all=JSON.parse(document.getElementById('data').textContent),plot=document.querySelector('.plot'),
out=document.querySelector('.readout'),line=document.querySelector('.cursor'),S=all.segments;
let now=-1;
const el=(tag,cls,text)=>{const e=document.createElement(tag);if(cls)e.className=cls;
if(text!=null)e.textContent=text;return e};
const clock=t=>{const c=Math.round(t*10),h=Math.floor(c/36000),m=Math.floor(c%36000/600),
s=(c%600/10).toFixed(1).padStart(4,'0');
return (h?h+':'+String(m).padStart(2,'0'):m)+':'+s};
const pc=v=>Math.round(v/10)+' %';
const chip=(k,words,number)=>{const e=el('span');const i=el('i','swatch'+(k<0?'':' e'+k));
e.append(i,words,' ',el('b','',number));return e};
const rows=[...document.querySelectorAll('.rows tbody tr')],rest=document.querySelector('.why'),
lane=document.querySelector('.rests .track');
let marked=-1;
function others(s){
 const list=el('ul');
 for(const [j,v] of s.c){
  const o=S[j],e=el('li');e.append(clock(o.a)+(o.w?' '+o.w:''),el('b','',pc(v)),el('bdi','muted',o.t||''));
  list.append(e)}
 return list}
function mark(i){
 if(!rest||i===marked)return;
 marked=i;const s=S[i];lane.replaceChildren();
 rows.forEach((r,k)=>{r.classList.toggle('asked',k===i);r.classList.remove('influence')});
 if(!s)return;
 rest.replaceChildren(el('p','',clock(s.a)+(s.w?' '+s.w:'')+(s.c?' rested on':' rested on no other segment')));
 if(!s.c)return;
 rest.append(others(s));
 for(const [j,v] of s.c){
  const o=S[j],b=el('i'),at=t=>100*t/all.total+'%';rows[j].classList.add('influence');lane.append(b);
  Object.assign(b.style,{left:at(o.a),width:at(o.b-o.a),height:100*v/s.c[0][1]+'%'})}}
function show(list,t){
 mark(S.indexOf(list[0]));out.replaceChildren();line.style.setProperty('--at',t/all.total);line.hidden=false;
 if(!list.length){out.append(el('p','',clock(t)+': no segment here'));return}
 for(const s of list.slice(0,2)){
  const head=el('p');head.append(clock(s.a)+' to '+clock(s.b)+(s.w?' · ':''));if(s.w)head.append(el('bdi','',s.w));
  out.append(head);const n=el('div','numbers');
  if(s.v)n.append(el('span','',s.v));
  else if(s.k<0)n.append(chip(-1,'not enough to tell',s.r||''));
  else s.p.map((v,k)=>[v,k]).sort((x,y)=>y[0]-x[0]).filter(([v],i)=>i<3||v>4).slice(0,9)
   .forEach(([v,k])=>n.append(chip(k,all.labels[k],pc(v))));
  out.append(n);const m=el('div','numbers muted');
  for(const [name,v] of Object.entries(s.m))m.append(chip(v[1],name+(v[1]<0?' absent':' alone '+all.labels[v[1]]),
   v[1]<0?'':pc(v[2])+', covered '+pc(v[0])));
  out.append(m);if(s.x)out.append(el('p','against','but '+s.x));
  if(s.t){const w=el('p','words',s.t);w.dir='auto';out.append(w)}
  if(s.c)out.append(el('p','muted','rested on'),others(s))
 }
 if(list.length>2)out.append(el('p','muted',(list.length-2)+' more at this time'));
}
function time(x){const track=plot.querySelector('.track').getBoundingClientRect();
 return Math.min(Math.max((x-track.left)/track.width,0),1)*all.total}
function at(t){const here=S.filter(s=>s.a<=t&&t<s.b);now=here.length?S.indexOf(here[0]):now;show(here,t)}
plot.addEventListener('pointermove',e=>at(time(e.clientX)));
plot.addEventListener('pointerdown',e=>at(time(e.clientX)));
plot.addEventListener('keydown',e=>{
 const to={ArrowRight:now+1,ArrowLeft:now-1,Home:0,End:S.length-1}[e.key];
 if(to===undefined||!S.length)return;
 e.preventDefault();now=Math.min(Math.max(to,0),S.length-1);const s=S[now],t=(s.a+s.b)/2;show([s],t);
 const box=plot.parentElement,track=plot.querySelector('.track');
 box.scrollLeft=track.offsetLeft+track.offsetWidth*t/all.total-box.clientWidth/2;
});
out.hidden=false;
if(rest){
 const table=document.querySelector('.rows'),
 pick=e=>{const i=rows.indexOf(e.target.closest('tr'));if(i>=0)mark(i);return i};
 rows.forEach((r,i)=>r.tabIndex=i?-1:0);
 table.addEventListener('pointerover',pick);
 table.addEventListener('click',pick);
 table.addEventListener('focusin',e=>{const i=pick(e);rows.forEach((r,k)=>r.tabIndex=k===i?0:-1)});
 table.addEventListener('keydown',e=>{
  const i=rows.indexOf(e.target),to={ArrowDown:i+1,ArrowUp:i-1,Home:0,End:rows.length-1}[e.key];
  if(i<0||to===undefined)return;
  e.preventDefault();rows[Math.min(Math.max(to,0),rows.length-1)].focus();
 });
}
"""


def colours(found: Mapping[str, str]) -> str:
    """Rules for the classes e0, e1, ...: the colour of each label, and the ink that reads on it."""
    return "".join(
        f".e{k}{{--c:{colour};--on:{ink_on(colour)};fill:{colour}}}" for k, colour in enumerate(found.values())
    )
