var Be=class extends Error{name="NoAdapterError"},ne=class extends Error{name="KernelError";kernel;line;constructor(e,t,o){super(e),this.kernel=t,this.line=o}},pe=class extends Error{name="DeviceLostError"},xe=class extends Error{name="OutOfMemoryError"},qr=null,Ne=null,cr=null,oe=null,Wr=[],Lo=["maxBufferSize","maxStorageBufferBindingSize","maxComputeInvocationsPerWorkgroup","maxComputeWorkgroupSizeX","maxComputeWorkgroupStorageSize"],lr=8;function Io(){return qr??=jo().catch(r=>{throw qr=null,r})}async function jo(){let r=await globalThis.navigator?.gpu?.requestAdapter({powerPreference:"high-performance"});if(!r)throw new Be("Cannot find a WebGPU adapter: install a Vulkan driver (on Debian and Ubuntu the software driver is `apt-get install mesa-vulkan-drivers libvulkan1`), or use a browser with WebGPU");let e={};for(let n of Lo)e[n]=r.limits[n];let t=["timestamp-query","shader-f16"].filter(n=>r.features.has(n)),o=await r.requestDevice({requiredLimits:e,requiredFeatures:t});o.addEventListener("uncapturederror",n=>{n.preventDefault();let{error:s}=n;fe(new Error(`Cannot go on, the GPU reported: ${s.message}`))}),o.lost.then(({reason:n,message:s})=>{Ne===o&&fe(new pe(`Cannot go on, the GPU device is lost (${n}): ${s}`))}),Ne=o,cr=r.info,oe=null}function O(){if(!Ne)throw new Error("Cannot use the GPU before init(): await init() once at start-up");if(oe instanceof pe)throw oe;return Ne}function Uo(){O();let{description:r,vendor:e,architecture:t}=cr;return r||`${e} ${t}`.trim()||"unnamed adapter"}function Kr(){return O(),cr.isFallbackAdapter}function fe(r){oe??=r}function ur(r){Wr.push(r.catch(e=>fe(e)))}function se(r,e,t){O().pushErrorScope(r);try{return e()}finally{ur(O().popErrorScope().then(o=>{o&&fe(t(o.message))}))}}async function Yr(){if(await Promise.all(Wr.splice(0)),!oe)return;let r=oe;throw r instanceof pe||(oe=null),r}var C={liveBytes:0,liveBuffers:0,peakBytes:0,shelvedBytes:0},ve=new Map,pr=0,Go=256*2**20;function Fo(){return{...C}}function Do(){C.peakBytes=C.liveBytes}function qo(r){let e=Math.max(256,2**(Math.floor(Math.log2(Math.max(r,1)))-3));return Math.max(256,Math.ceil(r/e)*e)}function me(r){let e=O(),{maxBufferSize:t}=e.limits;if(r>t)throw new RangeError(`Cannot make a tensor of ${r} bytes: the adapter's largest buffer is ${t} bytes`);let o=Math.min(qo(r),Math.floor(t/4)*4),n=ve.get(o)?.pop();return n?C.shelvedBytes-=o:n=se("out-of-memory",()=>e.createBuffer({size:o,usage:GPUBufferUsage.STORAGE|GPUBufferUsage.COPY_SRC|GPUBufferUsage.COPY_DST}),s=>new xe(`Cannot make a buffer of ${o} bytes with ${C.liveBytes} live and ${C.shelvedBytes} shelved: the GPU is out of memory, use a smaller batch or a smaller model (${s})`)),C.liveBytes+=o,C.liveBuffers++,C.peakBytes=Math.max(C.peakBytes,C.liveBytes),pr=Math.max(pr,C.liveBytes),n}function Jr(r){C.liveBytes-=r.size,C.liveBuffers--,C.shelvedBytes+=r.size;let e=ve.get(r.size);e?e.push(r):ve.set(r.size,[r])}function Xr(){return C.liveBytes+C.shelvedBytes>pr*1.25+Go}function Vr(){for(let r of ve.values())for(let e of r)e.destroy();ve=new Map,C.shelvedBytes=0}var W=256,mr=4096,Le={dispatches:0,submits:0,readbacks:0},ee=null,X=null,de=0,Zr=new Uint8Array(mr*W),fr=null,Pe=new Map,Qr=0,Wo=16384;function dr(r){if(fr?.device===r)return fr;let e=r.createBuffer({label:"sizes",size:mr*W,usage:GPUBufferUsage.UNIFORM|GPUBufferUsage.COPY_DST}),t=r.createBindGroupLayout({label:"sizes",entries:[{binding:0,visibility:GPUShaderStage.COMPUTE,buffer:{type:"uniform",hasDynamicOffset:!0}}]}),o=r.createBindGroup({label:"sizes",layout:t,entries:[{binding:0,resource:{buffer:e,size:W}}]});return Pe=new Map,fr={device:r,buffer:e,layout:t,group:o}}function et(){return dr(O()).layout}var Ko=0,Hr=new WeakMap;function Yo(r){let e=Hr.get(r);return e===void 0&&Hr.set(r,e=Ko++),e}function Jo(r,e){let t=r.label+e.map(a=>`${Yo(a.buffer)}:${a.offset}:${a.size}`).join(),o=e[0].buffer,n=Pe.get(o);n||Pe.set(o,n=new Map);let s=n.get(t);return s||(Qr++>Wo&&rt(),s=O().createBindGroup({layout:r,entries:e.map((a,i)=>({binding:i,resource:a}))}),n.set(t,s)),s}function rt(){Pe=new Map,Qr=0}function tt(r,e,t,o,n){let s=O();de===mr&&_e(),ee??=s.createCommandEncoder(),X??=ee.beginComputePass(),Zr.set(o,de*W),X.setPipeline(r),X.setBindGroup(0,Jo(e,t)),X.setBindGroup(1,dr(s).group,[de*W]),X.dispatchWorkgroups(n[0],n[1]??1,n[2]??1),de++,Le.dispatches++}function _e(){if(ee){let r=O();X?.end();let e=ee,t=de*W;ee=X=null,de=0,se("validation",()=>{t>0&&r.queue.writeBuffer(dr(r).buffer,0,Zr,0,t),r.queue.submit([e.finish()])},o=>new Error(`Cannot run what was recorded: ${o}`)),Le.submits++}Xr()&&ot()}function ot(){ee&&_e(),Vr(),rt()}function nt(r){let e=me(r.byteLength);return r.byteLength>0&&hr(e,0,r),e}function hr(r,e,t){_e(),O().queue.writeBuffer(r,e,t.buffer,t.byteOffset,t.byteLength)}async function st(r,e,t){let o=O(),n=o.createBuffer({label:"readback",size:Math.max(t,4),usage:GPUBufferUsage.MAP_READ|GPUBufferUsage.COPY_DST});try{X?.end(),X=null,ee??=o.createCommandEncoder(),ee.copyBufferToBuffer(r,e,n,0,t),_e(),Le.readbacks++;let s;if(await n.mapAsync(GPUMapMode.READ).catch(a=>s=a),await Yr(),s)throw s;return n.getMappedRange().slice(0,t)}finally{n.destroy()}}var Ie=[];function ae(r){return Ie.at(-1)?.add(r),r}function S(r){for(let e of Ie)e.delete(r);return r}function d(r){let e=new Set;Ie.push(e);let t;try{if(t=r(),t instanceof Promise)throw new TypeError("Cannot close a scope() around a promise: await outside it");return t}finally{Ie.pop();for(let o of at(t))e.delete(o)&&ae(o);for(let o of e)o.drop()}}function*at(r){if(!(typeof r!="object"||r===null)){if("strides"in r&&"drop"in r)yield r;else if(Array.isArray(r)||Object.getPrototypeOf(r)===Object.prototype)for(let e of Object.values(r))yield*at(e)}}function A(r){return r.reduce((e,t)=>e*t,1)}function je(r){let e=new Array(r.length);for(let t=r.length-1,o=1;t>=0;o*=r[t--])e[t]=o;return e}function Ue(r,e){let t=je(r);return r.every((o,n)=>o===1||e[n]===t[n])}function R(r,e){return r.length===e.length&&r.every((t,o)=>t===e[o])}function L(r,e){let t=r<0?r+e:r;if(!Number.isInteger(r)||t<0||t>=e)throw new RangeError(`Cannot take axis ${r} of a tensor with ${e} axes`);return t}function re(r,e){let t=Math.max(r.length,e.length);return Array.from({length:t},(o,n)=>{let s=r[n-t+r.length]??1,a=e[n-t+e.length]??1;if(s!==a&&s!==1&&a!==1)throw new RangeError(`Cannot broadcast [${r}] with [${e}]: axis ${n} is ${s} and ${a}`);return s===1?a:s})}function he(r,e,t){let o=t.length-r.length;return t.map((n,s)=>{let a=s-o;return a<0||r[a]===1&&n!==1?0:e[a]})}function Ge(r,e){let t=[],o=e.map(()=>[]);for(let[n,s]of r.entries()){if(s===1)continue;let a=t.length-1;a>=0&&e.every((u,l)=>o[l][a]===u[n]*s)?t[a]*=s:t.push(s);let c=t.length-1;e.forEach((u,l)=>o[l][c]=u[n])}return{shape:t,strides:o}}var gr={f32:Float32Array,u32:Uint32Array,i32:Int32Array},F=4,w=class r{shape;strides;offset;dtype;#e;#r=1;constructor(e,t,o,n,s){this.#e=e,this.shape=t,this.strides=o,this.offset=n,this.dtype=s,ae(this)}static on(e,t,o="f32"){return new r({buffer:e,owners:1},t,je(t),0,o)}static empty(e,t="f32"){return r.on(me(F*A(e)),e,t)}view(e,t=je(e),o=this.offset){return this.#t(),this.#e.owners++,new r(this.#e,e,t,o,this.dtype)}get live(){return this.#r>0}get size(){return A(this.shape)}get contiguous(){return this.offset===0&&Ue(this.shape,this.strides)}get binding(){this.#t();let e=this.shape.reduce((t,o,n)=>t+(o-1)*this.strides[n],this.offset);return{buffer:this.#e.buffer,offset:0,size:Math.max(F,F*(e+1))}}retain(){return this.#t(),this.#r++,this}drop(){this.#t(),!(--this.#r>0)&&--this.#e.owners===0&&Jr(this.#e.buffer)}release(){S(this).drop()}async data(){let{buffer:e,size:t}=this.binding,o=gr[this.dtype],n=Ue(this.shape,this.strides)?this.offset*F:0,s=new o(await st(e,n,this.size===0?0:t-n));if(Ue(this.shape,this.strides))return s;let a=new o(this.size),i=this.shape.map(()=>0);for(let c=0,u=this.offset;c<a.length;c++){a[c]=s[u];for(let l=i.length-1;l>=0&&(u+=this.strides[l],!(++i[l]<this.shape[l]));l--)u-=this.strides[l]*this.shape[l],i[l]=0}return a}async item(){if(this.size!==1)throw new RangeError(`Cannot take the item of a tensor of shape [${this.shape}]: it has ${this.size} elements`);return(await this.data())[0]}#t(){if(!this.live)throw new Error(`Cannot use a released tensor of shape [${this.shape}]: return it from its scope(), or keep() it`)}};function j(r,e,t){let o=ArrayBuffer.isView(r),n=o?r:ct(r),s=t??(o?it(r):"f32"),a=e??(o?[r.length]:lt(r));if(n.length!==A(a))throw new RangeError(`Cannot make a tensor of shape [${a}] (${A(a)} elements) from ${n.length} values`);let i=o&&s===it(r)?r:gr[s].from(n);return w.on(nt(i),a,s)}function it(r){return r instanceof Uint32Array?"u32":r instanceof Int32Array?"i32":"f32"}function ct(r){return typeof r=="number"?[r]:r.flatMap(ct)}function lt(r){return typeof r=="number"?[]:[r.length,...r.length?lt(r[0]):[]]}function ge(r,e,t){return r=Math.imul(r,1664525)+1013904223|0,e=Math.imul(e,1664525)+1013904223|0,t=Math.imul(t,1664525)+1013904223|0,r=r+Math.imul(e,t)|0,e=e+Math.imul(t,r)|0,t=t+Math.imul(r,e)|0,r^=r>>>16,e^=e>>>16,t^=t>>>16,r=r+Math.imul(e,t)|0,e=e+Math.imul(t,r)|0,t=t+Math.imul(r,e)|0,[r>>>0,e>>>0,t>>>0]}var Xo=65536;function yr(r,e){let[t,o]=r,n=String(e);for(let s=0;s<n.length;s++)[t,o]=ge(t,o,n.charCodeAt(s));return[t,o]=ge(t,o,Xo),[t,o]}var Te=class r{#e;#r=0;constructor(e,t){this.#e=yr([0,0],e),t!==void 0&&(this.#e=yr(this.#e,t))}fork(e){let t=new r("");return t.#e=yr(this.#e,e),t}next(){let[e,t]=ge(this.#r++,...this.#e);return(e&4294901760|t>>>16)>>>0}uniform(){return(this.next()>>>8)/2**24}below(e){if(!Number.isInteger(e)||e<1||e>2**32)throw new RangeError(`Cannot draw an integer below ${e}: it must be from 1 to 2\xB3\xB2`);let t=2**32-2**32%e,o;do o=this.next();while(o>=t);return o%e}normal(){for(;;){let e=(this.next()+1)/4294967296,t=Math.sqrt(8/Math.E)*((this.next()+.5)/2**32-.5)/e;if(t*t<=-4*Math.log(e))return t}}shuffle(e){let t=[...e];for(let o=t.length-1;o>0;o--){let n=this.below(o+1);[t[o],t[n]]=[t[n],t[o]]}return t}};function Vo(r,e="safetensors"){return{name:e,size:r.length,read:(t,o)=>Promise.resolve(r.slice(t,t+o))}}var ze={F64:8,F32:4,F16:2,BF16:2,I64:8,I32:4,I16:2,I8:1,U64:8,U32:4,U16:2,U8:1,BOOL:1},K=8,Ho=1e8,Zo=16*2**20,wr=class r{tensors;metadata;#e;constructor(e,t,o){this.#e=e,this.tensors=t,this.metadata=o}static async open(e){let t=p=>new RangeError(`Cannot read ${e.name}: ${p}`);if(e.size<K)throw t(`${e.size} bytes are too few for a safetensors file`);let o=await e.read(0,K),n=Number(new DataView(o.buffer).getBigUint64(0,!0));if(n>Ho)throw t(`its header claims ${n} bytes, it is no safetensors file`);if(K+n>e.size)throw t(`it is truncated, its header claims ${n} bytes and the file has ${e.size}`);let s;try{let p=new TextDecoder("utf-8",{fatal:!0}).decode(await e.read(K,n));s=JSON.parse(p)}catch{throw t("its header is not JSON")}if(typeof s!="object"||s===null||Array.isArray(s))throw t("its header is not a JSON object");let{__metadata__:a={},...i}=s,c=K+n,u=Object.entries(i).map(([p,f])=>Qo(p,f,c,t)),l=c;for(let{name:p,offset:f,bytes:m}of u.toSorted((h,g)=>h.offset-g.offset||h.bytes-g.bytes)){if(f<l)throw t(`tensor "${p}" overlaps the one before it`);if(f>l)throw t(`there is a hole of ${f-l} bytes before tensor "${p}"`);l=f+m}if(l>e.size)throw t(`it is truncated, its header promises ${l} bytes and the file has ${e.size}`);if(l<e.size)throw t(`${e.size-l} bytes follow its last tensor`);return new r(e,new Map(u.map(p=>[p.name,p])),a)}bytes(e){let{offset:t,bytes:o}=this.#r(e);return this.#e.read(t,o)}async floats(e){return ut(await this.bytes(e),this.#r(e),this.#e.name)}async integers(e){return en(await this.bytes(e),this.#r(e),this.#e.name)}async*pieces(e,t=Zo){let o=this.#r(e),n=ze[o.dtype],s=Math.max(1,Math.floor(t/n))*n;for(let a=0;a<o.bytes;a+=s){let i=await this.#e.read(o.offset+a,Math.min(s,o.bytes-a));yield{start:a/n,values:ut(i,o,this.#e.name)}}}#r(e){let t=this.tensors.get(e);if(!t)throw new RangeError(`Cannot find "${e}" in ${this.#e.name}`);return t}};function Qo(r,e,t,o){let{dtype:n,shape:s,data_offsets:a}=e??{},i=p=>Number.isSafeInteger(p)&&p>=0;if(typeof n!="string"||!Object.hasOwn(ze,n))throw o(`tensor "${r}" has dtype ${JSON.stringify(n)}, which is not known`);if(!Array.isArray(s)||!s.every(i))throw o(`tensor "${r}" has no proper shape`);if(!Array.isArray(a)||a.length!==2||!a.every(i))throw o(`tensor "${r}" has no proper data_offsets`);let[c,u]=a,l=A(s)*ze[n];if(u-c!==l)throw o(`tensor "${r}" is ${n} [${s}], which takes ${l} bytes, and holds ${u-c}`);return{name:r,dtype:n,shape:s,offset:t+c,bytes:l}}function ut(r,{name:e,dtype:t},o){switch(t){case"F32":return new Float32Array(r.buffer,r.byteOffset,r.length/4);case"F64":return Float32Array.from(new Float64Array(r.buffer,r.byteOffset,r.length/8));case"F16":return rn(new Uint16Array(r.buffer,r.byteOffset,r.length/2));case"BF16":{let n=new Uint32Array(r.length/2);return new Uint16Array(r.buffer,r.byteOffset,r.length/2).forEach((s,a)=>n[a]=s<<16),new Float32Array(n.buffer)}}throw new TypeError(`Cannot read "${e}" of ${o} as floats: it is ${t}`)}function en(r,{name:e,dtype:t},o){let n=new DataView(r.buffer,r.byteOffset,r.length),a={I64:c=>Number(n.getBigInt64(c,!0)),U64:c=>Number(n.getBigUint64(c,!0)),I32:c=>n.getInt32(c,!0),U32:c=>n.getUint32(c,!0),I16:c=>n.getInt16(c,!0),U16:c=>n.getUint16(c,!0),I8:c=>n.getInt8(c),U8:c=>n.getUint8(c),BOOL:c=>n.getUint8(c)}[t];if(!a)throw new TypeError(`Cannot read "${e}" of ${o} as integers: it is ${t}`);let i=ze[t];return Int32Array.from({length:r.length/i},(c,u)=>{let l=a(u*i);if(l===(l|0))return l;throw new RangeError(`Cannot read "${e}" of ${o} as i32: element ${u} is ${l}`)})}function rn(r){pt??=Float32Array.from({length:65536},(t,o)=>{let[n,s,a]=[o>>15?-1:1,o>>10&31,o&1023];return s===31?a?NaN:n*(1/0):n*(s?(1024+a)*2**(s-25):a*2**-24)});let e=new Float32Array(r.length);for(let t=0;t<r.length;t++)e[t]=pt[r[t]];return e}var pt;function tn(r){let e=r<0||Object.is(r,-0)?32768:0,t=Math.abs(r);if(Number.isNaN(r))return 32256;if(t>=65520)return e|31744;let o=Math.max(-14,Math.floor(Math.log2(t))),n=t/2**(o-10),s=Math.floor(n),a=n-s,i=s+(a>.5||a===.5&&s%2===1?1:0);return e|(o+14)*1024+i}var ft=new Uint32Array(1),on=new Float32Array(ft.buffer);function nn(r){on[0]=r;let e=ft[0];return Number.isNaN(r)?32704:e+32767+(e>>>16&1)>>>16}function br(r,e={}){let t=Object.keys(r).sort(),o=Object.keys(e).length?{__metadata__:e}:{},n=0;for(let u of t){let{dtype:l,shape:p,data:f}=r[u];if(f.length!==A(p))throw new RangeError(`Cannot save "${u}" of shape [${p}]: it has ${f.length} elements`);let m=n;n+=f.length*ze[l],o[u]={dtype:l,shape:p,data_offsets:[m,n]}}let s=new TextEncoder().encode(JSON.stringify(o)),a=Math.ceil(s.length/8)*8,i=new Uint8Array(K+a+n).fill(32,K,K+a);new DataView(i.buffer).setBigUint64(0,BigInt(a),!0),i.set(s,K);let c=K+a;for(let u of t){let l=sn(r[u]);i.set(l,c),c+=l.length}return i}function sn({dtype:r,data:e}){let o=Array.isArray(e)||ArrayBuffer.isView(e)?e:Array.from(e),n=r==="F32"?Float32Array.from(o):r==="F16"?Uint16Array.from(o,tn):r==="BF16"?Uint16Array.from(o,nn):r==="I64"?BigInt64Array.from(Array.from(o,BigInt)):r==="I32"?Int32Array.from(o):Uint8Array.from(o);return new Uint8Array(n.buffer)}var mt=`// What WGSL lacks, or leaves open. Pointwise kernels begin with this file.

// tanh, which some adapters turn into NaN beyond \xB144: it is \xB11 in f32 from 9.01 on.
fn tanh_(x: f32) -> f32 {
  return tanh(clamp(x, -15.0, 15.0));
}

// 1 / (1 + e\u207B\u02E3) without an infinity on the way.
fn sigmoid_(x: f32) -> f32 {
  return 1.0 / (1.0 + exp(clamp(-x, -87.0, 87.0)));
}

// The error function, to 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
fn erf_(x: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return sign(x) * (1.0 - p * exp(-min(x * x, 87.0)));
}

// x to a power, also for negative x and whole powers, where WGSL's pow is undefined.
fn pow_(x: f32, power: f32) -> f32 {
  if (power == 0.0) {
    return 1.0;
  }
  let size = pow(abs(x), power);
  let odd = fract(abs(power) * 0.5) == 0.5;
  return select(size, -size, x < 0.0 && odd);
}

fn gelu_tanh_derivative_(x: f32) -> f32 {
  let t = tanh_(0.7978845608028654 * (x + 0.044715 * x * x * x));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * x * x);
}

// Three random words from three: pcg3d of Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020. The
// twin of hash3() in tensor/random.ts.
fn hash3_(key: vec3u) -> vec3u {
  var v = key * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v ^= v >> vec3u(16u);
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  return v;
}
`;var xr=65535,_=class{name;wgsl;#e;#r;#t=new DataView(new ArrayBuffer(W));#o=null;#s;#n;#a=new Map;constructor(e,t){this.name=e,this.wgsl=t;let o=/struct Sizes \{([^}]*)\}/.exec(t)?.[1]??"";if(this.#e=[...o.matchAll(/(\w+): (u32|i32|f32)/g)].map(([,n,s])=>({name:n,type:s})),this.#r=[...t.matchAll(/@group\(0\) @binding\(\d+\)\s*var<storage, (read|read_write)>/g)].map(([,n])=>n),this.#r.length>lr||this.#e.length*4>W)throw new RangeError(`Cannot make kernel ${e}: it binds ${this.#r.length} buffers and ${this.#e.length} sizes, at most ${lr} and ${W/4} are portable`)}run(e,t,o,n,s={}){if(n.includes(0))return;let a=[...e,...t],i=a.map(u=>"binding"in u?u.binding:u);this.#i(a,i,n);let c=a.map(u=>"shape"in u?`[${u.shape}]`:"part").join(", ");tt(this.#l(s,c),this.#n,i,this.#c(o),n)}#i(e,t,o){if(t.length!==this.#r.length)throw new RangeError(`Cannot run ${this.name}: it binds ${this.#r.length} tensors, got ${t.length}`);let{maxStorageBufferBindingSize:n}=O().limits;for(let[s,{size:a}]of t.entries()){if(a<=n)continue;let i=e[s].shape;throw new RangeError(`Cannot run ${this.name} on [${i}]: it takes ${a} bytes, the adapter binds at most ${n}; use a smaller batch`)}if(o.some(s=>s>xr))throw new RangeError(`Cannot run ${this.name}: its grid is [${o}], at most ${xr} fit an axis`)}#c(e){let t=this.#t;for(let[o,{name:n,type:s}]of this.#e.entries()){let a=e[n];if(a===void 0)throw new Error(`Cannot run ${this.name}: its size "${n}" was not given`);s==="f32"?t.setFloat32(4*o,a,!0):s==="u32"?t.setUint32(4*o,a,!0):t.setInt32(4*o,a,!0)}return new Uint8Array(t.buffer,0,this.#e.length*4)}#l(e,t){let o=O();this.#o!==o&&this.#u(o,t);let n=Object.values(e).join(),s=this.#a.get(n);return s||(s=se("validation",()=>o.createComputePipeline({label:this.name,layout:o.createPipelineLayout({bindGroupLayouts:[this.#n,et()]}),compute:{module:this.#s,constants:e}}),a=>new ne(`Cannot run ${this.name} on ${t}: ${a}`,this.name)),this.#a.set(n,s)),s}#u(e,t){this.#o=e,this.#a=new Map,this.#n=e.createBindGroupLayout({label:this.#r.join(),entries:this.#r.map((o,n)=>({binding:n,visibility:GPUShaderStage.COMPUTE,buffer:{type:o==="read"?"read-only-storage":"storage"}}))}),this.#s=se("validation",()=>e.createShaderModule({label:this.name,code:this.wgsl}),o=>new ne(`Cannot compile ${this.name} for ${t}: ${o}`,this.name)),ur(this.#s.getCompilationInfo().then(({messages:o})=>{let n=o.find(({type:s})=>s==="error");n&&fe(new ne(`Cannot compile ${this.name} for ${t} at line ${n.lineNum}: ${n.message}`,this.name,n.lineNum))}))}};function E(r){let e=Math.max(1,Math.ceil(r/xr));return[Math.ceil(r/e),e,1]}var vr=64,dt=new Map;function b(r,e,t,o="f32"){let n=w.empty(t,o);return V(n,r,e),n}function V(r,e,t){let o=Object.keys(t),n=o.filter(f=>typeof t[f]=="object"),s=n.map(f=>t[f]),{shape:a,strides:i}=Ge(r.shape,[...s.map(f=>he(f.shape,f.strides,r.shape)),r.strides]),c=o.filter(f=>!n.includes(f)).map(f=>`${f}_value: ${typeof t[f]=="bigint"?"u32":"f32"}`),u=[e,a.length,...n.map((f,m)=>`${f} ${s[m].dtype}`),...c,r.dtype].join(),l=dt.get(u);l||dt.set(u,l=cn(e,a.length,n,s,c,r.dtype));let p={count:r.size};a.forEach((f,m)=>p[`size${m}`]=f),[...n,"out"].forEach((f,m)=>{p[`${f}_offset`]=(s[m]??r).offset,i[m].forEach((h,g)=>p[`${f}_stride${g}`]=h)});for(let f of o)typeof t[f]!="object"&&(p[`${f}_value`]=Number(t[f]));l.run(s,[r],p,E(Math.ceil(r.size/vr)))}function cn(r,e,t,o,n,s){let a=Array.from({length:e},(l,p)=>p),i=[...t,"out"],c=l=>[`sizes.${l}_offset`,...a.map(p=>`at${p} * sizes.${l}_stride${p}`)].join(" + "),u=`${mt}
struct Sizes {
  count: u32,
${a.map(l=>`  size${l}: u32,`).join(`
`)}
${i.map(l=>`  ${l}_offset: u32,`).join(`
`)}
${i.flatMap(l=>a.map(p=>`  ${l}_stride${p}: u32,`)).join(`
`)}
${n.map(l=>`  ${l},`).join(`
`)}
}
${t.map((l,p)=>`@group(0) @binding(${p}) var<storage, read> ${l}_in: array<${o[p].dtype}>;`).join(`
`)}
@group(0) @binding(${t.length}) var<storage, read_write> out: array<${s}>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(${vr})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * ${vr}u + id.x;
  if (i >= sizes.count) {
    return;
  }
${a.toReversed().map((l,p)=>l===0?`  let at0 = ${p===0?"i":`rest${l+1}`};`:`  let at${l} = ${p===0?"i":`rest${l+1}`} % sizes.size${l};
  let rest${l} = ${p===0?"i":`rest${l+1}`} / sizes.size${l};`).join(`
`)}
${t.map(l=>`  let ${l} = ${l}_in[${c(l)}];`).join(`
`)}
${n.map(l=>l.split("_value")[0]).map(l=>`  let ${l} = sizes.${l}_value;`).join(`
`)}
  out[${c("out")}] = ${r};
}
`;return new _(`pointwise "${r}"`,u)}var H=null;function x(r,e,t){return{inputs:[r],saves:e,vjp:o=>[t(o)]}}function ln(r,e,t){return{inputs:r,saves:e,vjp:t}}function T(r,e){if(!H)return r;let{entries:t,tracked:o}=H,n=e.filter(({inputs:s})=>s.some(a=>o.has(a)));if(n.length>0){for(let{saves:s}of n)s.forEach(a=>a.retain());t.push({output:r,flows:n}),o.add(r)}return r}function un(r){return H?.tracked.has(r)??!1}function ht(r,e){let t=H,o={entries:[],tracked:new Set(e)};H=o;let n;try{n=d(r)}catch(a){throw _r(o.entries),a}finally{H=t}let s=!1;return{value:n,backward(a){if(s)throw new Error("Cannot walk a tape twice: its saved tensors are released");if(!R(a.shape,n.shape))throw new RangeError(`Cannot start from a gradient of [${a.shape}]: the value is [${n.shape}]`);return s=!0,pn(o,n,a,e)}}}function Tr(r,e){let{value:t,backward:o}=ht(r,e),n=S(b("1.0",{},t.shape));try{return{value:t,grads:o(n)}}finally{n.drop()}}function _r(r){for(let{flows:e}of r)for(let{saves:t}of e)t.forEach(o=>o.drop())}function pn({entries:r,tracked:e},t,o,n){let s=H;H=null;let a=new Map([[t,o.retain()]]);try{for(;r.length>0;){let{output:i,flows:c}=r.pop(),u=a.get(i);try{if(u)for(let l of c)fn(l,u,a,e)}finally{_r([{output:i,flows:c}])}u&&!n.includes(i)&&(a.delete(i),u.drop())}return n.map((i,c)=>{let u=a.get(i);return u?n.indexOf(i)===c?ae(u.retain()):u.view(u.shape,u.strides,u.offset):b("0.0",{},i.shape)})}finally{_r(r);for(let i of a.values())i.drop();H=s}}function fn({inputs:r,vjp:e},t,o,n){let s=r.map(i=>n.has(i)),a=d(()=>e(t,s).map((i,c)=>{if(!i||!s[c])return null;if(!R(i.shape,r[c].shape))throw new RangeError(`Cannot take a gradient of [${i.shape}] for an input of [${r[c].shape}]`);return i===t?t.view(t.shape,t.strides,t.offset):i}));for(let[i,c]of a.entries()){if(!c)continue;let u=o.get(r[i]);if(!u){o.set(r[i],S(c));continue}o.set(r[i],S(b("a + b",{a:u,b:c},r[i].shape))),u.drop(),c.release()}}function ke(r,e,t="f32"){return b(t==="f32"?"value":`${t}(value)`,{value:e},r,t)}function Fe(r,e="f32"){return ke(r,0,e)}function wa(r,e="f32"){return ke(r,1,e)}var gt=`// loss[r] = lse - (1 - \u03B5) x[r, label] - \u03B5 mean(x[r, :]), with lse[r] = log \u03A3 exp x[r, :]; one invocation for each row.
struct Sizes {
  rows: u32,
  cols: u32,
  smoothing: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read_write> loss: array<f32>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var largest = x[start];
  for (var col = 1u; col < sizes.cols; col++) {
    largest = max(largest, x[start + col]);
  }
  var sum = 0.0;
  var total = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    sum += exp(x[start + col] - largest);
    // Distances from the largest stay small where the logits themselves are not.
    total += x[start + col] - largest;
  }
  let above = log(sum);
  let chosen = x[start + min(labels[row], sizes.cols - 1u)] - largest;
  loss[row] = above - (1.0 - sizes.smoothing) * chosen - sizes.smoothing * total / f32(sizes.cols);
  lse[row] = largest + above;
}
`;var yt=`// dx[r, c] = g[r] (exp(x[r, c] - lse[r]) - (1 - \u03B5) [c = label] - \u03B5 / cols), one invocation for each element.
struct Sizes {
  rows: u32,
  cols: u32,
  smoothing: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> lse: array<f32>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.rows * sizes.cols) {
    return;
  }
  let row = i / sizes.cols;
  let hit = select(0.0, 1.0 - sizes.smoothing, i % sizes.cols == labels[row]);
  dx[i] = g[row] * (exp(x[i] - lse[row]) - hit - sizes.smoothing / f32(sizes.cols));
}
`;var wt=`// y[o, i] = \u03A3 x[o, :, i], or the largest or smallest of them, for x of [OUTER, count, inner]; one invocation for each y.
override KIND: u32; // 0 sum, 1 max, 2 min

struct Sizes {
  outputs: u32,
  count: u32,
  inner: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn join(a: f32, b: f32) -> f32 {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), KIND == 1u);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.outputs) {
    return;
  }
  let start = at / sizes.inner * sizes.inner * sizes.count + at % sizes.inner;
  // Four running values: shorter chains, and less rounding in a long sum.
  var parts = vec4f(x[start]);
  if (KIND == 0u) {
    parts = vec4f(0.0);
  }
  let whole = sizes.count / 4u * 4u;
  for (var k = 0u; k < whole; k += 4u) {
    for (var j = 0u; j < 4u; j++) {
      parts[j] = join(parts[j], x[start + (k + j) * sizes.inner]);
    }
  }
  for (var k = whole; k < sizes.count; k++) {
    parts[k - whole] = join(parts[k - whole], x[start + k * sizes.inner]);
  }
  y[at] = join(join(parts[0], parts[1]), join(parts[2], parts[3]));
}
`;var bt=`// y[o] = \u03A3 x[o, :], or the largest or smallest of them, for few long rows of x; one workgroup for each row.
override KIND: u32; // 0 sum, 1 max, 2 min
const LANES = 256u;

struct Sizes {
  count: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

var<workgroup> partial: array<f32, LANES>;

fn join(a: f32, b: f32) -> f32 {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), KIND == 1u);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * sizes.count;
  // Four running values: shorter chains, and less rounding in a long sum.
  var parts = vec4f(x[start]);
  if (KIND == 0u) {
    parts = vec4f(0.0);
  }
  var turn = 0u;
  for (var k = lane; k < sizes.count; k += LANES) {
    parts[turn] = join(parts[turn], x[start + k]);
    turn = (turn + 1u) % 4u;
  }
  partial[lane] = join(join(parts[0], parts[1]), join(parts[2], parts[3]));
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
      partial[lane] = join(partial[lane], partial[lane + reach]);
    }
  }
  if (lane == 0u) {
    y[group.x] = partial[0];
  }
}
`;var yn=new _("reduce.wgsl",wt),wn=new _("reduce_wide.wgsl",bt),bn={sum:0,max:1,min:2},xn=1024,vn=1024;function zr(r,e,t,o,n){let s=e*o,a=w.empty([s]),i=bn[n];return o===1&&t>xn&&s<vn?wn.run([r],[a],{count:t},[s],{KIND:i}):yn.run([r],[a],{outputs:s,count:t,inner:o},E(Math.ceil(s/64)),{KIND:i}),a}var Se=(r,e)=>new RegExp(`\\b${e}\\b`).test(r);function P({forward:r,derivative:e}){return t=>Sr(t,r,e,{})}function kr({forward:r,derivative:e}){return(t,o)=>Sr(t,r,e,{c:o})}function Sr(r,e,t,o){let n=c=>Object.fromEntries(Object.entries(o).filter(([u])=>Se(c,u))),s=b(e,{x:r,...n(e)},r.shape),a={...Se(t,"x")&&{x:r},...Se(t,"y")&&{y:s}},{shape:i}=r;return T(s,[x(r,Object.values(a),c=>b(`g * (${t})`,{g:c,...a,...n(t)},i))])}function ye({forward:r,da:e,db:t}){return(o,n)=>{let s=re(o.shape,n.shape),a=(i,c)=>{let u={...Se(c,"a")&&{a:o},...Se(c,"b")&&{b:n}},{shape:l}=i;return x(i,Object.values(u),p=>c==="1.0"?D(p,l):d(()=>D(b(`g * (${c})`,{g:p,...u},s),l)))};return T(b(r,{a:o,b:n},s),[a(o,e),a(n,t)])}}var I=ye({forward:"a + b",da:"1.0",db:"1.0"}),xt=ye({forward:"a - b",da:"1.0",db:"-1.0"}),De=ye({forward:"a * b",da:"b",db:"a"}),vt=ye({forward:"a / b",da:"1.0 / b",db:"-a / (b * b)"}),Ba=ye({forward:"max(a, b)",da:"0.5 * (1.0 + sign(a - b))",db:"0.5 * (1.0 - sign(a - b))"}),Na=ye({forward:"min(a, b)",da:"0.5 * (1.0 - sign(a - b))",db:"0.5 * (1.0 + sign(a - b))"}),Pa=kr({forward:"x + c",derivative:"1.0"}),te=kr({forward:"c * x",derivative:"c"}),La=kr({forward:"pow_(x, c)",derivative:"c * pow_(x, c - 1.0)"}),Ia=P({forward:"-x",derivative:"-1.0"}),_t=P({forward:"exp(x)",derivative:"y"}),ja=P({forward:"log(x)",derivative:"1.0 / x"}),qe=P({forward:"sqrt(x)",derivative:"0.5 / y"}),Ua=P({forward:"inverseSqrt(x)",derivative:"-0.5 * y * y * y"}),$r=P({forward:"x * x",derivative:"2.0 * x"}),Ga=P({forward:"1.0 / x",derivative:"-y * y"}),Fa=P({forward:"abs(x)",derivative:"sign(x)"}),Da=P({forward:"sin(x)",derivative:"cos(x)"}),qa=P({forward:"cos(x)",derivative:"-sin(x)"}),Wa=P({forward:"tanh_(x)",derivative:"1.0 - y * y"}),Ka=P({forward:"sigmoid_(x)",derivative:"y * (1.0 - y)"}),Ya=P({forward:"max(x, 0.0)",derivative:"select(0.0, 1.0, x > 0.0)"}),Tt=P({forward:"0.5 * x * (1.0 + erf_(x * 0.7071067811865476))",derivative:"0.5 * (1.0 + erf_(x * 0.7071067811865476)) + x * exp(-0.5 * min(x * x, 170.0)) * 0.3989422804014327"}),zt=P({forward:"0.5 * x * (1.0 + tanh_(0.7978845608028654 * (x + 0.044715 * x * x * x)))",derivative:"gelu_tanh_derivative_(x)"}),kt=P({forward:"x * sigmoid_(1.702 * x)",derivative:"sigmoid_(1.702 * x) * (1.0 + 1.702 * x * (1.0 - sigmoid_(1.702 * x)))"});function St(r,e,t){return Sr(r,"clamp(x, low, high)","select(0.0, 1.0, x >= low && x <= high)",{low:e,high:t})}function Ja(r,e,t){let{shape:o}=r;return T(b("select(x, value, m != 0u)",{x:r,m:e,value:t},o),[x(r,[e],n=>b("select(g, 0.0, m != 0u)",{g:n,m:e},o))])}function Xa(r,e,t){let o=re(r.shape,re(e.shape,t.shape)),n=(s,a)=>{let{shape:i}=s;return x(s,[r],c=>d(()=>D(b(a,{g:c,c:r},o),i)))};return T(b("select(b, a, c != 0u)",{a:e,b:t,c:r},o),[n(e,"select(0.0, g, c != 0u)"),n(t,"select(g, 0.0, c != 0u)")])}function z(r){return r.contiguous?r:T(b("x",{x:r},r.shape,r.dtype),[x(r,[],e=>e)])}function k(r,e){let t=e.reduce((s,a)=>a===-1?s:s*a,1),o=e.map(s=>s===-1?r.size/t:s);if(A(o)!==r.size||o.some(s=>!Number.isInteger(s)||s<0))throw new RangeError(`Cannot reshape [${r.shape}] to [${e}]: it has ${r.size} elements`);let n=r.shape;return d(()=>{let s=z(r);return T(s.view(o),[x(s,[],a=>k(a,n))])})}function Z(r,e){let t=e.map(s=>L(s,r.shape.length));if(t.length!==r.shape.length||new Set(t).size!==t.length)throw new RangeError(`Cannot permute [${r.shape}] by [${e}]: each axis must be named once`);let o=t.map((s,a)=>t.indexOf(a)),n=r.view(t.map(s=>r.shape[s]),t.map(s=>r.strides[s]));return T(n,[x(r,[],s=>Z(s,o))])}function N(r,e=-2,t=-1){let o=r.shape.map((a,i)=>i),n=L(e,o.length),s=L(t,o.length);return[o[n],o[s]]=[s,n],Z(r,o)}function U(r,e,t=0,o,n=1){let s=L(e,r.shape.length),a=r.shape[s];if(!Number.isInteger(n)||n<1)throw new RangeError(`Cannot slice [${r.shape}] by steps of ${n}: a step is a positive integer`);let i=m=>Math.min(a,Math.max(0,m<0?m+a:m)),c=i(t),u=Math.max(0,Math.ceil((i(o??a)-c)/n)),{shape:l,strides:p}=r,f=r.view(l.with(s,u),p.with(s,p[s]*n),r.offset+c*p[s]);return T(f,[x(r,[],m=>d(()=>{let h=ke(l,0);return V(U(h,s,c,c+u*n,n),"g",{g:m}),h}))])}function We(r,e){let t=r.shape;if(!R(re(t,e),e))throw new RangeError(`Cannot expand [${t}] to [${e}]`);let o=r.view(e,he(t,r.strides,e));return T(o,[x(r,[],n=>D(n,t))])}function ni(r,e){let t=L(e,r.shape.length);if(r.shape[t]!==1)throw new RangeError(`Cannot squeeze axis ${e} of [${r.shape}]: it is not of size 1`);return k(r,r.shape.toSpliced(t,1))}function si(r,e){return k(r,r.shape.toSpliced(L(e,r.shape.length+1),0,1))}function Ke(r,e){let[t]=r;if(!t)throw new RangeError("Cannot concat no tensors: give at least one");let o=L(e,t.shape.length);for(let{shape:n}of r)if(!R(n.with(o,0),t.shape.with(o,0)))throw new RangeError(`Cannot concat [${t.shape}] with [${n}] along axis ${o}`);return d(()=>{let n=r.reduce((c,{shape:u})=>c+u[o],0),s=w.empty(t.shape.with(o,n),t.dtype),a=0,i=r.map(c=>{let u=a,l=a+=c.shape[o];return V(U(s,o,u,l),"x",{x:c}),x(c,[],p=>U(p,o,u,l))});return T(s,i)})}function ai(r,e,t=0){if(e.length!==r.shape.length||e.flat().some(s=>s<0))throw new RangeError(`Cannot pad [${r.shape}] by [${e.join("; ")}]: give two counts from 0 on for each axis`);let o=(s,a)=>e.reduce((i,[c],u)=>U(i,u,c,c+a[u]),s),{shape:n}=r;return d(()=>{let s=ke(n.map((a,i)=>a+e[i][0]+e[i][1]),t);return V(o(s,n),"x",{x:r}),T(s,[x(r,[],a=>o(a,n))])})}function ii(r){return r.view(r.shape,r.strides)}function Je(r,{axis:e,keepAxes:t=!1}){let o=e===void 0?r.map((i,c)=>c):[e].flat(),n=o.map(i=>L(i,r.length)).sort((i,c)=>i-c);if(new Set(n).size<n.length)throw new RangeError(`Cannot reduce axes [${o}]: one is named twice`);let s=r.map((i,c)=>n.includes(c)?1:i),a=t?s:r.filter((i,c)=>!n.includes(c));return{axes:n,kept:s,result:a,count:n.reduce((i,c)=>i*r[c],1)}}function Ye(r,e,t,o){return d(()=>{let{shape:n}=r,s=e.reduce((l,p)=>l*n[p],1);if(s===0&&t!=="sum")throw new RangeError(`Cannot take the ${t} of no elements: the shape is [${n}]`);let a=e[0]??n.length;if(e.every((l,p)=>l===a+p)){let l=A(n.slice(0,a)),p=A(n.slice(a+e.length));return zr(z(r),l,s,p,t).view(o)}let c=n.map((l,p)=>p).filter(l=>!e.includes(l)),u=z(Z(r,[...c,...e]));return zr(u,A(n)/s,s,1,t).view(o)})}function Q(r,e={}){let{axes:t,kept:o,result:n}=Je(r.shape,e),{shape:s}=r;return T(Ye(r,t,"sum",n),[x(r,[],a=>d(()=>We(k(a,o),s)))])}function $e(r,e={}){let{count:t}=Je(r.shape,e);return d(()=>te(Q(r,e),1/t))}function gi(r,e={}){return $t(r,"max",e)}function yi(r,e={}){return $t(r,"min",e)}function $t(r,e,t){let{axes:o,kept:n,result:s}=Je(r.shape,t),a=Ye(r,o,e,s);return T(a,[x(r,[r,a],i=>d(()=>{let c=b("select(0.0, 1.0, x == y)",{x:r,y:k(a,n)},r.shape),u=b("g / n",{g:k(i,n),n:Ye(c,o,"sum",n)},n);return De(c,u)}))])}function wi(r,{unbiased:e=!0,...t}={}){let{count:o}=Je(r.shape,t);return d(()=>{let n=xt(r,$e(r,{...t,keepAxes:!0}));return te(Q($r(n),t),1/(o-(e?1:0)))})}function At(r,e={}){return d(()=>qe(Q($r(r),e)))}function D(r,e){if(R(r.shape,e))return r;let t=r.shape.length-e.length,o=r.shape.map((n,s)=>s).filter(n=>n<t||e[n-t]===1&&r.shape[n]!==1);return Ye(r,o,"sum",e)}var _n=new _("cross_entropy.wgsl",gt),Tn=new _("cross_entropy_backward.wgsl",yt);function Et(r,e,{labelSmoothing:t=0,reduction:o="mean"}={}){let[n,s]=r.shape;if(r.shape.length!==2||e.shape.length!==1||e.shape[0]!==n)throw new RangeError(`Cannot take the crossEntropy of [${r.shape}] against labels [${e.shape}]`);if(e.dtype==="f32")throw new TypeError("Cannot take f32 labels: give u32 or i32");return d(()=>{let[a,i]=[z(r),z(e)],c=w.empty([n]),u=w.empty([n]);return _n.run([a,i],[c,u],{rows:n,cols:s,smoothing:t},[Math.ceil(n/64)]),T(c,[x(r,[a,i,u],l=>d(()=>{let p=w.empty([n,s]),f=E(Math.ceil(n*s/64));return Tn.run([a,i,u,z(l)],[p],{rows:n,cols:s,smoothing:t},f),p}))]),o==="none"?c:o==="sum"?Q(c):$e(c)})}function Rt(r,e,{seed:t,stream:o}){if(!(e>=0&&e<1))throw new RangeError(`Cannot drop with probability ${e}: it must be from 0 to below 1`);if(e===0)return r;let n={below:BigInt(Math.round(e*2**32)),stream:BigInt(o),seed:BigInt(t),c:1/(1-e)},s="select(0.0, c, hash3_(vec3u(i, stream, seed)).x >= below)";return T(b(`x * ${s}`,{x:r,...n},r.shape),[x(r,[],a=>b(`x * ${s}`,{x:a,...n},a.shape))])}function Oi(r,e,t){let o=n=>b("select(0.0, x * c, m != 0u)",{x:n,m:e,c:1/(1-t)},n.shape);return T(o(r),[x(r,[e],o)])}var Ot=`// y[i, :] = table[i / GROUP \xB7 step + ids[i], :], where ids[i] is below step: the rows of an embedding table, or one token
// of each sequence. The table bound is the part of it that begins at row \`first\`; rows that lie in no part are 0.
struct Sizes {
  count: u32,
  cols: u32,
  group: u32,
  step: u32,
  first: u32,
  rows: u32,
}
@group(0) @binding(0) var<storage, read> table: array<f32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.count * sizes.cols) {
    return;
  }
  let i = at / sizes.cols;
  let row = i / sizes.group * sizes.step + ids[i];
  let known = ids[i] < sizes.step;
  if (known && row >= sizes.first && row - sizes.first < sizes.rows) {
    y[at] = table[(row - sizes.first) * sizes.cols + at % sizes.cols];
  } else if (sizes.first == 0u) {
    y[at] = 0.0;
  }
}
`;var Ct=`// dtable[r, :] = \u03A3 g[i, :] over the i of r's group with ids[i] = r % step: the gradient of gather.wgsl. One invocation
// for each element, which looks for its row's ids in order: no atomics, the same sum on every run.
struct Sizes {
  rows: u32,
  cols: u32,
  group: u32,
  step: u32,
}
@group(0) @binding(0) var<storage, read> ids: array<u32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> dtable: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = id.y * groups.x * 64u + id.x;
  if (at >= sizes.rows * sizes.cols) {
    return;
  }
  let row = at / sizes.cols;
  let start = row / sizes.step * sizes.group;
  var sum = 0.0;
  for (var i = start; i < start + sizes.group; i++) {
    if (ids[i] == row % sizes.step) {
      sum += g[i * sizes.cols + at % sizes.cols];
    }
  }
  dtable[at] = sum;
}
`;var Sn=new _("gather.wgsl",Ot),$n=new _("scatter.wgsl",Ct),Mt=256;function Bt(r,e){let[,t]=r.shape;return Pt(r,e,e.size,r.shape[0],[...e.shape,t])}function Nt(r,e){let[t,o,n]=r.shape;if(r.shape.length!==3||e.size!==t)throw new RangeError(`Cannot take tokens [${e.shape}] of [${r.shape}]: one id for each sequence is needed`);return Pt(r,e,1,o,[t,n])}function Pt(r,e,t,o,n){if(e.dtype==="f32")throw new TypeError("Cannot look up f32 ids: give u32 or i32");let s=r.shape,a=s.at(-1),i=A(s)/a,c=e.size;return d(()=>{let[u,l]=[z(r),z(e)],p=w.empty(n),{buffer:f,size:m}=u.binding,h=Mt/Lt(Mt,a*F),g=Math.floor(O().limits.maxStorageBufferBindingSize/(a*F)),v=i<=g?i:Math.floor(g/h)*h;for(let y=0;y<Math.max(i,1);y+=v){let $=y*a*F,B=Math.min(v,i-y);Sn.run([{buffer:f,offset:$,size:Math.min(m-$,B*a*F)},l],[p],{count:c,cols:a,group:t,step:o,first:y,rows:B},E(Math.ceil(c*a/64)))}return T(p,[x(r,[l],y=>d(()=>{let $=w.empty(s),B=E(Math.ceil(i*a/64));return $n.run([l,z(y)],[$],{rows:i,cols:a,group:t,step:o},B),$}))])})}function Lt(r,e){return e===0?r:Lt(e,r%e)}var It=`// y[r, :] = (x[r, :] - mean) / \u221A(var + \u03B5) \xB7 weight + bias, with stats[r] = (mean, 1 / \u221A(var + \u03B5)); one invocation for
// each row.
struct Sizes {
  rows: u32,
  cols: u32,
  epsilon: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var sum = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    sum += x[start + col];
  }
  let mean = sum / f32(sizes.cols);
  // A second pass: the mean of squares less the square of the mean would lose what a large mean leaves of them.
  var squares = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    let d = x[start + col] - mean;
    squares += d * d;
  }
  let rstd = 1.0 / sqrt(squares / f32(sizes.cols) + sizes.epsilon);
  for (var col = 0u; col < sizes.cols; col++) {
    y[start + col] = (x[start + col] - mean) * rstd * weight[col] + bias[col];
  }
  stats[row] = vec2f(mean, rstd);
}
`;var jt=`// dx[r, :] = rstd (h - mean(h) - x\u0302 mean(h x\u0302)), with h = g[r, :] weight and x\u0302 = (x[r, :] - mean) rstd; one invocation
// for each row.
struct Sizes {
  rows: u32,
  cols: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read> stats: array<vec2f>;
@group(0) @binding(3) var<storage, read> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  let mean = stats[row].x;
  let rstd = stats[row].y;
  var sum = 0.0;
  var dot = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    let h = g[start + col] * weight[col];
    sum += h;
    dot += h * (x[start + col] - mean) * rstd;
  }
  sum /= f32(sizes.cols);
  dot /= f32(sizes.cols);
  for (var col = 0u; col < sizes.cols; col++) {
    let normal = (x[start + col] - mean) * rstd;
    dx[start + col] = rstd * (g[start + col] * weight[col] - sum - normal * dot);
  }
}
`;var Rn=new _("layer_norm.wgsl",It),On=new _("layer_norm_backward.wgsl",jt);function Ut(r,e,t,o=1e-5){let{shape:n}=r,s=e.shape;if(!R(n.slice(n.length-s.length),s)||!R(s,t.shape))throw new RangeError(`Cannot layerNorm [${n}] with weight [${s}] and bias [${t.shape}]`);let a=A(s),i=r.size/a,c=E(Math.ceil(i/64));return d(()=>{let[u,l]=[z(r),z(e)],p=w.empty(n),f=w.empty([i,2]);return Rn.run([u,l,z(t)],[p,f],{rows:i,cols:a,epsilon:o},c),T(p,[x(r,[u,l,f],m=>d(()=>{let h=w.empty(n);return On.run([u,l,f,z(m)],[h],{rows:i,cols:a},c),h})),x(e,[u,f],m=>d(()=>{let h=f.view([i,1],[2,1]),g=f.view([i,1],[2,1],1),[v,y]=[u.view([i,a]),k(m,[i,a])],$=b("g * (x - mean) * rstd",{g:y,x:v,mean:h,rstd:g},[i,a]);return k(D($,[a]),s)})),x(t,[],m=>D(m,s))])})}var Gt=`// out[b] = a[b] \xD7 c[b], with a of [m, k], c of [k, n], each read through its own strides, so that a transposed or
// sliced operand needs no copy. An invocation makes 4 rows of 8 columns, LANES_X apart. Nothing is shared in workgroup memory: the tile is in registers, and the loads of a row of lanes are neighbours.
override LANES_X: u32;
override LANES_Y: u32;

struct Sizes {
  m: u32,
  n: u32,
  k: u32,
  tiles_m: u32,
  tiles_n: u32,
  groups: u32,
  batch1: u32,
  batch2: u32,
  a_offset: u32,
  a_batch0: u32,
  a_batch1: u32,
  a_batch2: u32,
  a_row: u32,
  a_col: u32,
  c_offset: u32,
  c_batch0: u32,
  c_batch1: u32,
  c_batch2: u32,
  c_row: u32,
  c_col: u32,
}
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> c: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let at = group.y * groups.x + group.x;
  if (at >= sizes.groups) {
    return;
  }
  let batch = at / (sizes.tiles_m * sizes.tiles_n);
  let row = (at / sizes.tiles_n % sizes.tiles_m * LANES_Y + lane.y) * 4u;
  let col = at % sizes.tiles_n * LANES_X * 8u + lane.x;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;

  // Past the ragged edge the last row and column are read again, and not stored.
  let rows = min(vec4u(row, row + 1u, row + 2u, row + 3u), vec4u(sizes.m - 1u));
  let low = min(col + vec4u(0u, 1u, 2u, 3u) * LANES_X, vec4u(sizes.n - 1u));
  let high = min(col + vec4u(4u, 5u, 6u, 7u) * LANES_X, vec4u(sizes.n - 1u));
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;
  var at_a = a_start + rows * sizes.a_row;
  var at_low = c_start + low * sizes.c_col;
  var at_high = c_start + high * sizes.c_col;

  var low0 = vec4f();
  var low1 = vec4f();
  var low2 = vec4f();
  var low3 = vec4f();
  var high0 = vec4f();
  var high1 = vec4f();
  var high2 = vec4f();
  var high3 = vec4f();
  for (var k = 0u; k < sizes.k; k++) {
    let x = vec4f(a[at_a.x], a[at_a.y], a[at_a.z], a[at_a.w]);
    let l = vec4f(c[at_low.x], c[at_low.y], c[at_low.z], c[at_low.w]);
    let h = vec4f(c[at_high.x], c[at_high.y], c[at_high.z], c[at_high.w]);
    low0 += x.x * l;
    low1 += x.y * l;
    low2 += x.z * l;
    low3 += x.w * l;
    high0 += x.x * h;
    high1 += x.y * h;
    high2 += x.z * h;
    high3 += x.w * h;
    at_a += sizes.a_col;
    at_low += sizes.c_row;
    at_high += sizes.c_row;
  }

  let start = batch * sizes.m * sizes.n;
  store(start, row, col, low0, high0);
  store(start, row + 1u, col, low1, high1);
  store(start, row + 2u, col, low2, high2);
  store(start, row + 3u, col, low3, high3);
}

fn store(start: u32, row: u32, col: u32, low: vec4f, high: vec4f) {
  if (row >= sizes.m) {
    return;
  }
  for (var j = 0u; j < 4u; j++) {
    let left = col + j * LANES_X;
    if (left < sizes.n) {
      out[start + row * sizes.n + left] = low[j];
    }
    let right = left + 4u * LANES_X;
    if (right < sizes.n) {
      out[start + row * sizes.n + right] = high[j];
    }
  }
}
`;var Ft=`// out[b] = a[b] \xD7 c[b] where a lies along k and c along k (c is a transpose) or along n, in whole vec4. An invocation
// makes 8 rows of 8 neighbouring columns in registers, from 16 vec4 loads for every four steps along k: a software
// adapter is bound by the number of loads, and this is a third of what matmul.wgsl needs.
override C_ALONG_K: bool;
override LANES_X: u32;
override LANES_Y: u32;

struct Sizes {
  m: u32,
  n: u32,
  k: u32,
  tiles_m: u32,
  tiles_n: u32,
  groups: u32,
  batch1: u32,
  batch2: u32,
  a_offset: u32,
  a_batch0: u32,
  a_batch1: u32,
  a_batch2: u32,
  a_row: u32,
  a_col: u32,
  c_offset: u32,
  c_batch0: u32,
  c_batch1: u32,
  c_batch2: u32,
  c_row: u32,
  c_col: u32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_id) lane: vec3u,
) {
  let at = group.y * groups.x + group.x;
  if (at >= sizes.groups) {
    return;
  }
  let batch = at / (sizes.tiles_m * sizes.tiles_n);
  let row = (at / sizes.tiles_n % sizes.tiles_m * LANES_Y + lane.y) * 8u;
  let col = (at % sizes.tiles_n * LANES_X + lane.x) * 8u;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;

  // Past the ragged edge the last row and columns are read again, and not stored.
  let last_row = sizes.m - 1u;
  let a0 = (a_start + min(row, last_row) * sizes.a_row) / 4u;
  let a1 = (a_start + min(row + 1u, last_row) * sizes.a_row) / 4u;
  let a2 = (a_start + min(row + 2u, last_row) * sizes.a_row) / 4u;
  let a3 = (a_start + min(row + 3u, last_row) * sizes.a_row) / 4u;
  let a4 = (a_start + min(row + 4u, last_row) * sizes.a_row) / 4u;
  let a5 = (a_start + min(row + 5u, last_row) * sizes.a_row) / 4u;
  let a6 = (a_start + min(row + 6u, last_row) * sizes.a_row) / 4u;
  let a7 = (a_start + min(row + 7u, last_row) * sizes.a_row) / 4u;

  // Named one by one: a software adapter keeps an array that a loop indexes in memory, at half the speed.
  var l0 = vec4f();
  var h0 = vec4f();
  var l1 = vec4f();
  var h1 = vec4f();
  var l2 = vec4f();
  var h2 = vec4f();
  var l3 = vec4f();
  var h3 = vec4f();
  var l4 = vec4f();
  var h4 = vec4f();
  var l5 = vec4f();
  var h5 = vec4f();
  var l6 = vec4f();
  var h6 = vec4f();
  var l7 = vec4f();
  var h7 = vec4f();
  if (C_ALONG_K) {
    let last_col = sizes.n - 1u;
    let at0 = (c_start + min(col, last_col) * sizes.c_col) / 4u;
    let at1 = (c_start + min(col + 1u, last_col) * sizes.c_col) / 4u;
    let at2 = (c_start + min(col + 2u, last_col) * sizes.c_col) / 4u;
    let at3 = (c_start + min(col + 3u, last_col) * sizes.c_col) / 4u;
    let at4 = (c_start + min(col + 4u, last_col) * sizes.c_col) / 4u;
    let at5 = (c_start + min(col + 5u, last_col) * sizes.c_col) / 4u;
    let at6 = (c_start + min(col + 6u, last_col) * sizes.c_col) / 4u;
    let at7 = (c_start + min(col + 7u, last_col) * sizes.c_col) / 4u;
    for (var k = 0u; k < sizes.k / 4u; k++) {
      let c0 = c[at0 + k];
      let c1 = c[at1 + k];
      let c2 = c[at2 + k];
      let c3 = c[at3 + k];
      let c4 = c[at4 + k];
      let c5 = c[at5 + k];
      let c6 = c[at6 + k];
      let c7 = c[at7 + k];
      let x0 = a[a0 + k];
      l0 += vec4f(dot(x0, c0), dot(x0, c1), dot(x0, c2), dot(x0, c3));
      h0 += vec4f(dot(x0, c4), dot(x0, c5), dot(x0, c6), dot(x0, c7));
      let x1 = a[a1 + k];
      l1 += vec4f(dot(x1, c0), dot(x1, c1), dot(x1, c2), dot(x1, c3));
      h1 += vec4f(dot(x1, c4), dot(x1, c5), dot(x1, c6), dot(x1, c7));
      let x2 = a[a2 + k];
      l2 += vec4f(dot(x2, c0), dot(x2, c1), dot(x2, c2), dot(x2, c3));
      h2 += vec4f(dot(x2, c4), dot(x2, c5), dot(x2, c6), dot(x2, c7));
      let x3 = a[a3 + k];
      l3 += vec4f(dot(x3, c0), dot(x3, c1), dot(x3, c2), dot(x3, c3));
      h3 += vec4f(dot(x3, c4), dot(x3, c5), dot(x3, c6), dot(x3, c7));
      let x4 = a[a4 + k];
      l4 += vec4f(dot(x4, c0), dot(x4, c1), dot(x4, c2), dot(x4, c3));
      h4 += vec4f(dot(x4, c4), dot(x4, c5), dot(x4, c6), dot(x4, c7));
      let x5 = a[a5 + k];
      l5 += vec4f(dot(x5, c0), dot(x5, c1), dot(x5, c2), dot(x5, c3));
      h5 += vec4f(dot(x5, c4), dot(x5, c5), dot(x5, c6), dot(x5, c7));
      let x6 = a[a6 + k];
      l6 += vec4f(dot(x6, c0), dot(x6, c1), dot(x6, c2), dot(x6, c3));
      h6 += vec4f(dot(x6, c4), dot(x6, c5), dot(x6, c6), dot(x6, c7));
      let x7 = a[a7 + k];
      l7 += vec4f(dot(x7, c0), dot(x7, c1), dot(x7, c2), dot(x7, c3));
      h7 += vec4f(dot(x7, c4), dot(x7, c5), dot(x7, c6), dot(x7, c7));
    }
  } else {
    let left = (c_start + min(col, sizes.n - 4u)) / 4u;
    let right = (c_start + min(col + 4u, sizes.n - 4u)) / 4u;
    let step = sizes.c_row / 4u;
    for (var k = 0u; k < sizes.k / 4u; k++) {
      let at = k * 4u * step;
      let c0 = c[left + at + 0u * step];
      let d0 = c[right + at + 0u * step];
      let c1 = c[left + at + 1u * step];
      let d1 = c[right + at + 1u * step];
      let c2 = c[left + at + 2u * step];
      let d2 = c[right + at + 2u * step];
      let c3 = c[left + at + 3u * step];
      let d3 = c[right + at + 3u * step];
      let x0 = a[a0 + k];
      l0 += x0.x * c0 + x0.y * c1 + x0.z * c2 + x0.w * c3;
      h0 += x0.x * d0 + x0.y * d1 + x0.z * d2 + x0.w * d3;
      let x1 = a[a1 + k];
      l1 += x1.x * c0 + x1.y * c1 + x1.z * c2 + x1.w * c3;
      h1 += x1.x * d0 + x1.y * d1 + x1.z * d2 + x1.w * d3;
      let x2 = a[a2 + k];
      l2 += x2.x * c0 + x2.y * c1 + x2.z * c2 + x2.w * c3;
      h2 += x2.x * d0 + x2.y * d1 + x2.z * d2 + x2.w * d3;
      let x3 = a[a3 + k];
      l3 += x3.x * c0 + x3.y * c1 + x3.z * c2 + x3.w * c3;
      h3 += x3.x * d0 + x3.y * d1 + x3.z * d2 + x3.w * d3;
      let x4 = a[a4 + k];
      l4 += x4.x * c0 + x4.y * c1 + x4.z * c2 + x4.w * c3;
      h4 += x4.x * d0 + x4.y * d1 + x4.z * d2 + x4.w * d3;
      let x5 = a[a5 + k];
      l5 += x5.x * c0 + x5.y * c1 + x5.z * c2 + x5.w * c3;
      h5 += x5.x * d0 + x5.y * d1 + x5.z * d2 + x5.w * d3;
      let x6 = a[a6 + k];
      l6 += x6.x * c0 + x6.y * c1 + x6.z * c2 + x6.w * c3;
      h6 += x6.x * d0 + x6.y * d1 + x6.z * d2 + x6.w * d3;
      let x7 = a[a7 + k];
      l7 += x7.x * c0 + x7.y * c1 + x7.z * c2 + x7.w * c3;
      h7 += x7.x * d0 + x7.y * d1 + x7.z * d2 + x7.w * d3;
    }
  }

  let start = batch * sizes.m * sizes.n;
  store(start, row, col, l0, h0);
  store(start, row + 1u, col, l1, h1);
  store(start, row + 2u, col, l2, h2);
  store(start, row + 3u, col, l3, h3);
  store(start, row + 4u, col, l4, h4);
  store(start, row + 5u, col, l5, h5);
  store(start, row + 6u, col, l6, h6);
  store(start, row + 7u, col, l7, h7);
}

fn store(start: u32, row: u32, col: u32, low: vec4f, high: vec4f) {
  if (row >= sizes.m) {
    return;
  }
  let at = start + row * sizes.n + col;
  for (var j = 0u; j < 4u; j++) {
    if (col + j < sizes.n) {
      out[at + j] = low[j];
    }
    if (col + 4u + j < sizes.n) {
      out[at + 4u + j] = high[j];
    }
  }
}
`;var Bn=new _("matmul.wgsl",Gt),Nn=new _("matmul_vec4.wgsl",Ft),Dt=3;function Ae(r,e){let[t,o]=r.shape.slice(-2),[n,s]=e.shape.slice(-2);if(r.shape.length<2||e.shape.length<2||o!==n){let v=r.shape.length<2||e.shape.length<2?"both need two axes":`inner sizes are ${o} and ${n}`;throw new RangeError(`Cannot matmul [${r.shape}] with [${e.shape}]: ${v}`)}let a=re(r.shape.slice(0,-2),e.shape.slice(0,-2)),i=w.empty([...a,t,s]);if(i.size===0)return i;if(o===0)return V(i,"0.0",{}),i;let c=[r,e].map(v=>he(v.shape.slice(0,-2),v.strides.slice(0,-2),a)),u=Ge(a,c);if(u.shape.length>Dt){i.drop();let v=[r,e].map(y=>b("x",{x:y},[...a,...y.shape.slice(-2)]));return Ae(v[0],v[1])}let l=Dt-u.shape.length,p=(v,y)=>u.strides[v][y-l]??0,f=Pn(r,e,t,s,o),[m,h]=[Math.ceil(t/f.rows),Math.ceil(s/f.cols)],g=a.reduce((v,y)=>v*y,m*h);return f.kernel.run([r,e],[i],{m:t,n:s,k:o,tiles_m:m,tiles_n:h,groups:g,batch1:u.shape[1-l]??1,batch2:u.shape[2-l]??1,a_offset:r.offset,a_batch0:p(0,0),a_batch1:p(0,1),a_batch2:p(0,2),a_row:r.strides.at(-2),a_col:r.strides.at(-1),c_offset:e.offset,c_batch0:p(1,0),c_batch1:p(1,1),c_batch2:p(1,2),c_row:e.strides.at(-2),c_col:e.strides.at(-1)},E(g),f.constants),i}function Pn(r,e,t,o,n){let s=(l,p)=>l.strides.at(p)===1&&[l.offset,...l.strides.toSpliced(l.strides.length+p,1)].every(f=>f%4===0),a=s(e,-2),i=o>8;if(n%4===0&&s(r,-1)&&(a||o%4===0&&s(e,-1))){let[l,p]=i?[8,Xe()]:[1,8*Xe()],f={C_ALONG_K:a?1:0,LANES_X:l,LANES_Y:p};return{kernel:Nn,rows:8*p,cols:8*l,constants:f}}let[c,u]=i?[8,Xe()]:[1,8*Xe()];return{kernel:Bn,rows:4*u,cols:8*c,constants:{LANES_X:c,LANES_Y:u}}}function Xe(){return Kr()?1:8}function Y(r,e){if(r.shape.length>2&&e.shape.length===2&&r.shape.at(-1)===e.shape[0])return d(()=>{let n=Y(k(r,[-1,r.shape.at(-1)]),e);return k(n,[...r.shape.slice(0,-1),e.shape[1]])});let[t,o]=[r.shape,e.shape];return T(d(()=>Ae(r,e)),[x(r,[e],n=>d(()=>D(Ae(n,N(e)),t))),x(e,[r],n=>d(()=>D(Ae(N(r),n),o)))])}function Ee(r,e,t=null){return d(()=>{let o=Y(r,N(e));return t?I(o,t):o})}function qt(r,e){let[t,o,n,s]=r.shape,[a,,i]=e.shape,[c,u]=[Math.floor(n/i),Math.floor(s/i)];return d(()=>{let l=U(U(r,2,0,c*i),3,0,u*i),p=k(l,[t,o,c,i,u,i]),f=Z(p,[0,2,4,1,3,5]),m=k(f,[t,c*u,o*i*i]);return Y(m,N(k(e,[a,-1])))})}function Ar(r,e=-1,t=0){return d(()=>{let o=At(r,{axis:e,keepAxes:!0});return vt(r,t>0?St(o,t,34e37):o)})}var Wt=`// y[r, :] = x[r, :] - max - log \u03A3 exp(x[r, :] - max), one invocation for each row.
struct Sizes {
  rows: u32,
  cols: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var largest = x[start];
  for (var col = 1u; col < sizes.cols; col++) {
    largest = max(largest, x[start + col]);
  }
  var sum = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    sum += exp(x[start + col] - largest);
  }
  let shift = largest + log(sum);
  for (var col = 0u; col < sizes.cols; col++) {
    y[start + col] = x[start + col] - shift;
  }
}
`;var Kt=`// y[r, :] = exp(s x[r, :] - max) / \u03A3 exp(s x[r, :] - max), one invocation for each row.
// With CAUSAL, row r belongs to query r % queries, and columns after the query are 0.
override CAUSAL: bool;

struct Sizes {
  rows: u32,
  cols: u32,
  queries: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var end = sizes.cols;
  if (CAUSAL) {
    end = min(end, row % sizes.queries + 1u);
  }
  // Subtracting the row's largest value keeps exp() finite and changes nothing else.
  var largest = x[start] * sizes.scale;
  for (var col = 1u; col < end; col++) {
    largest = max(largest, x[start + col] * sizes.scale);
  }
  var sum = 0.0;
  for (var col = 0u; col < end; col++) {
    let e = exp(x[start + col] * sizes.scale - largest);
    y[start + col] = e;
    sum += e;
  }
  for (var col = 0u; col < end; col++) {
    y[start + col] /= sum;
  }
  for (var col = end; col < sizes.cols; col++) {
    y[start + col] = 0.0;
  }
}
`;var Yt=`// dx[r, :] = s y[r, :] (g[r, :] - \u03A3 y[r, :] g[r, :]), one invocation for each row. Where y is 0, so is dx: a causal
// mask needs no care here.
struct Sizes {
  rows: u32,
  cols: u32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> y: array<f32>;
@group(0) @binding(1) var<storage, read> g: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var dot = 0.0;
  for (var col = 0u; col < sizes.cols; col++) {
    dot += y[start + col] * g[start + col];
  }
  for (var col = 0u; col < sizes.cols; col++) {
    dx[start + col] = sizes.scale * y[start + col] * (g[start + col] - dot);
  }
}
`;var Un=new _("softmax.wgsl",Kt),Gn=new _("softmax_backward.wgsl",Yt),Fn=new _("log_softmax.wgsl",Wt);function Jt(r,e,t){let o=L(e,r.shape.length),n=r.shape.length-1;return o===n?t(r):d(()=>N(t(N(r,o,n)),o,n))}function Xt(r,e=-1){return Jt(r,e,t=>Vt(t,1,!1))}function Vt(r,e,t){let o=r.shape.at(-1),n=r.size/o,s=E(Math.ceil(n/64)),{shape:a}=r;return d(()=>{let i=w.empty(a),c=a.at(-2)??1;return Un.run([z(r)],[i],{rows:n,cols:o,queries:c,scale:e},s,{CAUSAL:t?1:0}),T(i,[x(r,[i],u=>d(()=>{let l=w.empty(a);return Gn.run([i,z(u)],[l],{rows:n,cols:o,scale:e},s),l}))])})}function Uc(r,e=-1){return Jt(r,e,t=>{let o=t.shape.at(-1),n=t.size/o,{shape:s}=t;return d(()=>{let a=w.empty(s);return Fn.run([z(t)],[a],{rows:n,cols:o},E(Math.ceil(n/64))),T(a,[x(t,[a],i=>d(()=>b("g - exp(y) * total",{g:i,y:a,total:Q(i,{axis:-1,keepAxes:!0})},s)))])})})}function Ht(r,e,t,{causal:o=!1,scale:n=1/Math.sqrt(r.shape.at(-1))}={}){return d(()=>Y(Vt(Y(r,N(e)),n,o),t))}var Zt=`// values[r, :] and indices[r, :] are the k largest of x[r, :], in descending order, the first of equal ones first; one
// invocation for each row. With SMALLEST the k smallest, in ascending order.
override SMALLEST: bool;

struct Sizes {
  rows: u32,
  cols: u32,
  k: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> indices: array<i32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

fn signed(at: u32) -> f32 {
  return select(x[at], -x[at], SMALLEST);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  var last = 0.0;
  var last_col = 0u;
  for (var rank = 0u; rank < sizes.k; rank++) {
    // The largest of what comes after the one found last: smaller, or equal and further on.
    var best = 0.0;
    var best_col = sizes.cols;
    for (var col = 0u; col < sizes.cols; col++) {
      let value = signed(start + col);
      let left = rank == 0u || value < last || (value == last && col > last_col);
      if (left && (best_col == sizes.cols || value > best)) {
        best = value;
        best_col = col;
      }
    }
    last = best;
    last_col = best_col;
    values[row * sizes.k + rank] = select(best, -best, SMALLEST);
    indices[row * sizes.k + rank] = i32(best_col);
  }
}
`;var qn=new _("top_k.wgsl",Zt);function Qt(r,e,t=-1){return to(r,e,t,!1)}function eo(r,e=-1){return ro(r,e,!1)}function Xc(r,e=-1){return ro(r,e,!0)}function ro(r,e,t){let o=L(e,r.shape.length);return d(()=>k(to(r,1,e,t).indices,r.shape.toSpliced(o,1)))}function to(r,e,t,o){let n=L(t,r.shape.length),s=r.shape[n];if(!(Number.isInteger(e)&&e>=1&&e<=s))throw new RangeError(`Cannot take the top ${e} along axis ${t} of [${r.shape}]: it has ${s} elements`);return d(()=>{let a=z(N(r,n,-1)),i=a.shape.with(-1,e),c=w.empty(i),u=w.empty(i,"i32"),l=r.size/s,p=E(Math.ceil(l/64));return qn.run([a],[c,u],{rows:l,cols:s,k:e},p,{SMALLEST:o?1:0}),{values:N(c,n,-1),indices:N(u,n,-1)}})}var oo=`// d = g + l2 p; mean \u2190 \u03B2\u2081 mean + (1 - \u03B2\u2081) d; square \u2190 \u03B2\u2082 square + (1 - \u03B2\u2082) d\xB2;
// p \u2190 p - decay p - rate mean / (\u221Asquare \xB7 correction + epsilon); one invocation for each element.
// Source: Kingma and Ba, arXiv 1412.6980, algorithm 1; decay: Loshchilov and Hutter, arXiv 1711.05101, algorithm 2.
override AMSGRAD: bool; // if false, largest is bound to no elements

struct Sizes {
  count: u32,
  // The host makes these in 64 bits: 1 - \u03B2\u2082 and 1 - \u03B2\u2082\u1D57 have few digits left where 32 bits subtract.
  rate: f32,
  correction: f32,
  decay: f32,
  l2: f32,
  beta1: f32,
  beta2: f32,
  one_minus_beta1: f32,
  one_minus_beta2: f32,
  epsilon: f32,
}
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> p: array<f32>;
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;
@group(0) @binding(3) var<storage, read_write> square: array<f32>;
@group(0) @binding(4) var<storage, read_write> largest: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.count) {
    return;
  }
  let d = g[i] + sizes.l2 * p[i];
  let m = sizes.beta1 * mean[i] + sizes.one_minus_beta1 * d;
  var v = sizes.beta2 * square[i] + sizes.one_minus_beta2 * d * d;
  mean[i] = m;
  square[i] = v;
  if (AMSGRAD) {
    v = max(largest[i], v);
    largest[i] = v;
  }
  // One subtraction: \`p (1 - decay)\` would round a decay of 1e-6 to one or two digits.
  p[i] -= sizes.decay * p[i] + sizes.rate * m / (sqrt(v) * sizes.correction + sizes.epsilon);
}
`;function ie(r){return[r,typeof r=="number"&&r>=0&&r<1/0,"a number from 0 on"]}var ce=class{#e;#r;#t;#o=new Map;#s;#n=0;constructor(e,t,o){let n=Kn(t);this.#e=e,this.#r=n.map(({parameters:a,...i})=>({...e.defaults,...o,...i}));let s=n.flatMap((a,i)=>a.parameters.map(c=>({parameter:c,group:i})));Yn(e.name,s.map(({parameter:a})=>a));for(let a of this.#r)Jn(e,a);this.#s=S(w.empty([0])),this.#t=s.map(({parameter:a,group:i},c)=>{let l=Object.entries(e.state(this.#r[i])).map(([p,f])=>{if(!f)return this.#s;let m=S(Fe(a.shape));return this.#o.set(`${c}.${p}`,m),m});return{parameter:a,group:i,state:l}})}get steps(){return this.#n}rates(e=this.#n){return this.#r.map(({learningRate:t})=>typeof t=="function"?t(e):t)}step(e){let{name:t,kernel:o,constants:n,sizes:s}=this.#e;this.#a(e);let a=this.rates();for(let i of a)if(!ie(i)[1])throw new RangeError(`Cannot step ${t}: the learning rate of step ${this.#n} is ${i}, it must be a number from 0 on`);d(()=>{for(let[i,{parameter:c,group:u,state:l}]of this.#t.entries()){let p=this.#r[u];o.run([z(e[i])],[c,...l],{count:c.size,...s(p,a[u],this.#n)},E(Math.ceil(c.size/64)),n(p))}}),this.#n++}state(){return{steps:this.#n,tensors:Object.fromEntries(this.#o)}}restore({steps:e,tensors:t}){let o=new Set([...this.#o.keys(),...Object.keys(t)]);for(let n of o){let[s,a]=[this.#o.get(n),t[n]];if(s&&a&&R(s.shape,a.shape))continue;let[i,c]=[s,a].map(u=>u?`[${u.shape}]`:"absent");throw new RangeError(`Cannot restore ${this.#e.name}: "${n}" is ${c} in the given state and ${i} here, use the state of the same optimizer on the same parameters`)}if(!Number.isSafeInteger(e)||e<0)throw new RangeError(`Cannot restore ${this.#e.name}: ${e} is no number of steps`);for(let[n,s]of this.#o)V(s,"x",{x:t[n]});this.#n=e}release(){for(let e of[this.#s,...this.#o.values()])e.release()}#a(e){let{name:t}=this.#e;if(e.length!==this.#t.length)throw new RangeError(`Cannot step ${t}: it has ${this.#t.length} parameters, got ${e.length} gradients`);for(let[o,{parameter:{shape:n}}]of this.#t.entries()){let s=e[o];if(!(s.dtype==="f32"&&R(s.shape,n)))throw new RangeError(`Cannot step ${t}: parameter ${o} is f32 [${n}], its gradient ${s.dtype} [${s.shape}]`)}}};function Kn(r){let e=t=>"parameters"in t;return r.every(e)?r:[{parameters:r}]}function Yn(r,e){if(e.length===0)throw new RangeError(`Cannot make ${r}: there are no parameters, give at least one`);for(let[t,o]of e.entries()){let n=`Cannot make ${r}: parameter ${t}, [${o.shape}],`;if(o.dtype!=="f32")throw new TypeError(`${n} is ${o.dtype}, not f32`);if(!o.contiguous)throw new RangeError(`${n} is a view that cannot be updated in place, give a contiguous() copy`);if(e.indexOf(o)<t)throw new RangeError(`${n} is given twice, each must be in one group once`)}}function Jn(r,e){let{learningRate:t,weightDecay:o}=e,n={...typeof t!="function"&&{learningRate:ie(t)},weightDecay:ie(o),...r.ranges(e)};for(let[s,[a,i,c]]of Object.entries(n))if(!i)throw new RangeError(`Cannot make ${r.name}: ${s} is ${a}, it must be ${c}`)}var Xn=new _("adam.wgsl",oo);function so(r,e,t){return{name:r,kernel:Xn,defaults:{learningRate:.001,weightDecay:t,betas:[.9,.999],epsilon:1e-8,amsgrad:!1},ranges:({betas:o,epsilon:n})=>({betas:[o,o.every(s=>s>=0&&s<1),"two numbers from 0 to below 1"],epsilon:ie(n)}),state:({amsgrad:o})=>({mean:!0,square:!0,largest:o}),constants:({amsgrad:o})=>({AMSGRAD:+o}),sizes:({weightDecay:o,betas:[n,s],epsilon:a},i,c)=>({rate:i/(1-n**(c+1)),correction:1/Math.sqrt(1-s**(c+1)),decay:e?i*o:0,l2:e?0:o,beta1:n,beta2:s,one_minus_beta1:1-n,one_minus_beta2:1-s,epsilon:a})}}var Vn=so("Adam",!1,0),Hn=so("AdamW",!0,.01),no=class extends ce{constructor(e,t={}){super(Vn,e,t)}},Ve=class extends ce{constructor(e,t={}){super(Hn,e,t)}};var ao=`// parts[first + w] = \u03A3 x[i]\xB2 over the share of workgroup w: every groups-th run of LANES elements.
const LANES = 256u;

struct Sizes {
  count: u32,
  first: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

var<workgroup> partial: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  var sum = 0.0;
  for (var k = group.x * LANES + lane; k < sizes.count; k += groups.x * LANES) {
    sum += x[k] * x[k];
  }
  partial[lane] = sum;
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
      partial[lane] += partial[lane + reach];
    }
  }
  if (lane == 0u) {
    parts[sizes.first + group.x] = partial[0];
  }
}
`;var Qn=new _("sum_of_squares.wgsl",ao),es=64,rs=1024;function ts(r){let e=r.map(({size:t})=>Math.min(es,Math.ceil(t/rs)));return d(()=>{let t=w.empty([e.reduce((n,s)=>n+s,0)]),o=0;for(let[n,s]of r.entries())Qn.run([z(s)],[t],{count:s.size,first:o},[e[n]]),o+=e[n];return qe(Q(t))})}function io(r,e){if(!(e>0&&e<1/0))throw new RangeError(`Cannot clip to a norm of ${e}: it must be a finite number above 0`);return d(()=>{let t=ts(r),o=r.map(n=>b("g * min(1.0, limit / (norm + 1e-6))",{g:n,norm:t,limit:e},n.shape));return{norm:t,grads:o}})}function Er(r,e,t){if(!(t>0))throw new RangeError(`Cannot anneal over ${t} steps: the number must be above 0`);return o=>e+(r-e)*(1+Math.cos(Math.PI*o/t))/2}var co=`// d = g + weight_decay p; momentum \u2190 \u03BC momentum + gain d; p \u2190 p - rate step, where step is momentum, for Nesterov's
// d + \u03BC momentum, without momentum d; one invocation for each element. Source: torch.optim.SGD.
override MOMENTUM: bool; // if false, momentum is bound to no elements
override NESTEROV: bool;

struct Sizes {
  count: u32,
  rate: f32,
  weight_decay: f32,
  mu: f32,
  gain: f32,
}
@group(0) @binding(0) var<storage, read> g: array<f32>;
@group(0) @binding(1) var<storage, read_write> p: array<f32>;
@group(0) @binding(2) var<storage, read_write> momentum: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.count) {
    return;
  }
  let d = g[i] + sizes.weight_decay * p[i];
  var step = d;
  if (MOMENTUM) {
    let m = sizes.mu * momentum[i] + sizes.gain * d;
    momentum[i] = m;
    step = select(m, d + sizes.mu * m, NESTEROV);
  }
  p[i] -= sizes.rate * step;
}
`;var ns={name:"Sgd",kernel:new _("sgd.wgsl",co),defaults:{learningRate:.001,weightDecay:0,momentum:0,dampening:0,nesterov:!1},ranges:({momentum:r,dampening:e,nesterov:t})=>({momentum:ie(r),dampening:[e,Number.isFinite(e),"a finite number"],nesterov:[t,!t||r>0&&e===0,"false without momentum, and with dampening"]}),state:({momentum:r})=>({momentum:r!==0}),constants:({momentum:r,nesterov:e})=>({MOMENTUM:+(r!==0),NESTEROV:+e}),sizes:({weightDecay:r,momentum:e,dampening:t},o,n)=>({rate:o,weight_decay:r,mu:e,gain:n===0?1:1-t})},lo=class extends ce{constructor(e,t={}){super(ns,e,t)}};var le=class{weight;bias;adapter=null;constructor(e,t=null){this.weight=e,this.bias=t}forward(e,t){return d(()=>{let o=Ee(e,this.weight,this.bias);return this.adapter?I(o,this.adapter.delta(e,t)):o})}},Rr=class{#e;#r;#t;constructor(e,t,o){this.#e=e,this.#r=t,this.#t=o}forward(e){return Ut(e,this.#e,this.#r,this.#t)}},ss={quick_gelu:kt,gelu:Tt,gelu_new:zt},J={q:"self_attn.q_proj",k:"self_attn.k_proj",v:"self_attn.v_proj",o:"self_attn.out_proj",fc1:"mlp.fc1",fc2:"mlp.fc2"};function ue(r,e,t){return new Rr(r.get(`${e}.weight`),r.get(`${e}.bias`),t)}var Or=class{projections;#e;#r;#t;#o;#s;constructor(e,t,o,n){let s=i=>new le(e.get(`${t}.${i}.weight`),e.get(`${t}.${i}.bias`)),a=Object.entries(J).map(([i,c])=>[i,s(c)]);this.projections=Object.fromEntries(a),this.#e=ue(e,`${t}.layer_norm1`,o.layerNormEps),this.#r=ue(e,`${t}.layer_norm2`,o.layerNormEps),this.#t=o.heads,this.#o=n,this.#s=ss[o.activation]}forward(e,t){return d(()=>{let o=I(e,this.#n(this.#e.forward(e),t));return I(o,this.#a(this.#r.forward(o),t))})}#n(e,t){let[o,n,s]=e.shape,{q:a,k:i,v:c,o:u}=this.projections,l=f=>{let m=k(f.forward(e,t),[o,n,this.#t,-1]);return Z(m,[0,2,1,3])},p=Ht(l(a),l(i),l(c),{causal:this.#o});return u.forward(k(Z(p,[0,2,1,3]),[o,n,s]),t)}#a(e,t){let{fc1:o,fc2:n}=this.projections;return n.forward(this.#s(o.forward(e,t)),t)}};function He(r,e,t,o){return Array.from({length:t.layers},(n,s)=>new Or(r,`${e}.encoder.layers.${s}`,t,o))}var Cr=class{ids;ends;constructor(e,t){this.ids=S(e),this.ends=S(t)}release(){this.ids.release(),this.ends.release()}},Ze=class{blocks;#e;#r;#t;#o;#s;constructor(e,t){let o="text_model";this.#e=t,this.#r=e.get(`${o}.embeddings.token_embedding.weight`),this.#t=e.get(`${o}.embeddings.position_embedding.weight`),this.blocks=He(e,o,t,!0),this.#o=ue(e,`${o}.final_layer_norm`,t.layerNormEps),this.#s=new le(e.get("text_projection.weight"))}prompts(e,t){let{context:o,vocabulary:n}=this.#e,s=e.length/t;if(!Number.isInteger(s)||s<1||s>o)throw new RangeError(`Cannot encode ${t} prompts of ${s} tokens: the model's context is ${o} tokens`);let a=e.find(l=>l<0||l>=n);if(a!==void 0)throw new RangeError(`Cannot encode token ${a}: the model's vocabulary has ${n} tokens`);let i=new Int32Array(t);for(let l=0;l<t;l++)i[l]=this.#n(e.subarray(l*s,(l+1)*s));let c=Math.max(...i)+1,u=new Int32Array(t*c);for(let l=0;l<t;l++)u.set(e.subarray(l*s,l*s+c),l*c);return new Cr(j(u,[t,c]),j(i))}#n(e){let{endRule:t,endToken:o}=this.#e;return t==="first-end"?Math.max(0,e.indexOf(o)):e.indexOf(e.reduce((n,s)=>Math.max(n,s)))}embed({ids:e}){return d(()=>I(Bt(this.#r,e),U(this.#t,0,0,e.shape[1])))}normalize(e){return this.#o.forward(e)}pool(e,{ends:t}){return d(()=>this.normalize(Nt(e,t)))}forward(e,t){return d(()=>{let o=this.blocks.reduce((n,s)=>s.forward(n,t),this.embed(e));return this.#s.forward(this.pool(o,e))})}};var Qe=class{blocks;#e;#r;#t;#o;#s;#n;#a;constructor(e,t){let o="vision_model";this.#e=t,this.#r=e.get(`${o}.embeddings.patch_embedding.weight`),this.#t=e.get(`${o}.embeddings.class_embedding`),this.#o=e.get(`${o}.embeddings.position_embedding.weight`),this.#s=ue(e,`${o}.pre_layrnorm`,t.layerNormEps),this.blocks=He(e,o,t,!1),this.#n=ue(e,`${o}.post_layernorm`,t.layerNormEps),this.#a=new le(e.get("visual_projection.weight"))}embed(e){let{imageSize:t,width:o}=this.#e,[n,...s]=e.shape;if(s.join()!==[3,t,t].join())throw new RangeError(`Cannot encode images of [${e.shape}]: the model takes [B,3,${t},${t}]`);return d(()=>{let a=qt(e,this.#r),i=We(k(this.#t,[1,1,o]),[n,1,o]);return this.#s.forward(I(Ke([i,a],1),this.#o))})}pool(e){let[t,,o]=e.shape;return d(()=>this.#n.forward(k(U(e,1,0,1),[t,o])))}forward(e,t){return d(()=>{let o=this.blocks.reduce((n,s)=>s.forward(n,t),this.embed(e));return this.#a.forward(this.pool(o))})}};var er=class{#e;constructor(e){this.#e=e}get names(){return[...this.#e.keys()]}get(e){let t=this.#e.get(e);if(!t)throw new RangeError(`Cannot find weight "${e}": the model has none of that name`);return t}release(){for(let e of this.#e.values())e.release();this.#e.clear()}};function po({vision:r,text:e,embedding:t}){let o=new Map([["logit_scale",[]]]),n=(u,{width:l,mlpWidth:p,layers:f})=>{for(let m=0;m<f;m++){let h=`${u}.encoder.layers.${m}`;for(let g of["layer_norm1","layer_norm2"])o.set(`${h}.${g}.weight`,[l]).set(`${h}.${g}.bias`,[l]);for(let g of["q_proj","k_proj","v_proj","out_proj"])o.set(`${h}.self_attn.${g}.weight`,[l,l]),o.set(`${h}.self_attn.${g}.bias`,[l]);o.set(`${h}.mlp.fc1.weight`,[p,l]).set(`${h}.mlp.fc1.bias`,[p]),o.set(`${h}.mlp.fc2.weight`,[l,p]).set(`${h}.mlp.fc2.bias`,[l])}},{width:s,imageSize:a,patchSize:i}=r,c=Math.floor(a/i)**2;o.set("vision_model.embeddings.class_embedding",[s]),o.set("vision_model.embeddings.patch_embedding.weight",[s,3,i,i]),o.set("vision_model.embeddings.position_embedding.weight",[c+1,s]);for(let u of["pre_layrnorm","post_layernorm"])o.set(`vision_model.${u}.weight`,[s]).set(`vision_model.${u}.bias`,[s]);return n("vision_model",r),o.set("visual_projection.weight",[t,s]),o.set("text_model.embeddings.token_embedding.weight",[e.vocabulary,e.width]),o.set("text_model.embeddings.position_embedding.weight",[e.context,e.width]),n("text_model",e),o.set("text_model.final_layer_norm.weight",[e.width]),o.set("text_model.final_layer_norm.bias",[e.width]),o.set("text_projection.weight",[t,e.width]),o}var as={logit_scale:{name:"logit_scale"},"vision_model.embeddings.class_embedding":{name:"visual.class_embedding"},"vision_model.embeddings.patch_embedding.weight":{name:"visual.conv1.weight"},"vision_model.embeddings.position_embedding.weight":{name:"visual.positional_embedding"},"vision_model.pre_layrnorm.weight":{name:"visual.ln_pre.weight"},"vision_model.pre_layrnorm.bias":{name:"visual.ln_pre.bias"},"vision_model.post_layernorm.weight":{name:"visual.ln_post.weight"},"vision_model.post_layernorm.bias":{name:"visual.ln_post.bias"},"visual_projection.weight":{name:"visual.proj",transposed:!0},"text_model.embeddings.token_embedding.weight":{name:"token_embedding.weight"},"text_model.embeddings.position_embedding.weight":{name:"positional_embedding"},"text_model.final_layer_norm.weight":{name:"ln_final.weight"},"text_model.final_layer_norm.bias":{name:"ln_final.bias"},"text_projection.weight":{name:"text_projection",transposed:!0}},is={layer_norm1:"ln_1",layer_norm2:"ln_2","self_attn.out_proj":"attn.out_proj","mlp.fc1":"mlp.c_fc","mlp.fc2":"mlp.c_proj"};function cs(r){let e=/^(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(r);if(!e)return as[r];let[,t,o,n,s]=e,a=`${t==="vision"?"visual.":""}transformer.resblocks.${o}`,i=["self_attn.q_proj","self_attn.k_proj","self_attn.v_proj"].indexOf(n);return i>=0?{name:`${a}.attn.in_proj_${s}`,third:i}:{name:`${a}.${is[n]}.${s}`}}function ls(r){return[...r].includes("visual.conv1.weight")}var us=/(^|\.)position_ids$|^(input_resolution|context_length|vocab_size)$|^visual\.input_resolution$/;async function Mr(r,e){let t=new Map;for(let a of r)for(let i of a.tensors.keys())t.set(i,a);let o=ls(t.keys()),n=[...po(e)].map(([a,i])=>({name:a,shape:i,source:o?cs(a):{name:a}}));ps(n.map(({source:a})=>a.name),t);for(let{name:a,shape:i,source:c}of n)fs(a,i,c,t);let s=new Map;try{for(let{name:a,shape:i,source:c}of n)s.set(a,await ms(t.get(c.name),c,i))}catch(a){for(let i of s.values())i.release();throw a}return new er(s)}function ps(r,e){let t=[...new Set(r)].filter(n=>!e.has(n));if(t.length>0)throw new RangeError(`Cannot load the model: ${uo(t)} missing from its weights`);let o=[...e.keys()].filter(n=>!r.includes(n)&&!us.test(n));if(o.length>0)throw new RangeError(`Cannot load the model: ${uo(o)} not known, the configuration has no such weights`)}function uo(r){let e=r.slice(0,3).map(o=>`"${o}"`).join(", "),t=r.length-3;return`${e}${t>0?` and ${t} more`:""} ${r.length>1?"are":"is"}`}function fs(r,e,t,o){let n=o.get(t.name).tensors.get(t.name).shape,s=t.third!==void 0?e.with(0,e[0]*3):t.transposed?e.toReversed():e;if(!(R(n,s)||s.length===0&&A(n)===1))throw new RangeError(`Cannot load "${t.name}"${t.name===r?"":` as "${r}"`}: the file holds [${n}], the model needs [${s}]`)}async function ms(r,{name:e,third:t,transposed:o},n){let s=await hs(r,e);if(t===void 0&&!o)return ds(s,n);let a=d(()=>{let i=t===void 0?N(s):U(s,0,t*n[0],(t+1)*n[0]);return b("x",{x:i},n)});return s.release(),S(a)}function ds(r,e){if(R(r.shape,e))return r;let t=S(k(z(r),e));return r.release(),t}async function hs(r,e){let{shape:t}=r.tensors.get(e),o=S(w.on(me(A(t)*F),t));try{for await(let{start:n,values:s}of r.pieces(e))hr(o.binding.buffer,n*F,s)}catch(n){throw o.release(),n}return o}var fo=class r{config;vision;text;weights;constructor(e,t){this.config=e,this.weights=t,this.vision=new Qe(t,e.vision),this.text=new Ze(t,e.text)}static async load(e,t){return new r(e,await Mr(t,e))}imageFeatures(e,t){return this.vision.forward(e,t)}textFeatures(e,t){return this.text.forward(e,t)}logits(e,t,o){return d(()=>{let n=Y(Ar(e),N(Ar(t)));return o===void 0?De(n,_t(this.weights.get("logit_scale"))):te(n,o)})}release(){this.weights.release()}};var mo=["quick_gelu","gelu","gelu_new"];function lu(r){let e=Br(r,"config.json","the file");if(e.model_type!=="clip")throw G("config.json","model_type",e.model_type,'"clip"');let t=p=>Br(e[p]??e[`${p}_dict`]??{},"config.json",p),[o,n]=[t("text_config"),t("vision_config")],s=(p,f,m,h)=>Nr(p[m]??h,`${f}.${m}`),a=(p,f,m,h,g)=>{let v={width:s(p,f,"hidden_size",m),layers:s(p,f,"num_hidden_layers",12),heads:s(p,f,"num_attention_heads",g),mlpWidth:s(p,f,"intermediate_size",h)};if(v.width%v.heads!==0)throw G("config.json",`${f}.num_attention_heads`,v.heads,`a divisor of the width ${v.width}`);let y=p.hidden_act??"quick_gelu";if(!mo.includes(y))throw G("config.json",`${f}.hidden_act`,y,mo.join(", "));let $=p.layer_norm_eps??1e-5;if(typeof $!="number"||!($>0))throw G("config.json",`${f}.layer_norm_eps`,$,"a positive number");return{...v,activation:y,layerNormEps:$}},i=n.num_channels??3;if(i!==3)throw G("config.json","vision_config.num_channels",i,"3");let c={...a(n,"vision_config",768,3072,12),imageSize:s(n,"vision_config","image_size",224),patchSize:s(n,"vision_config","patch_size",32)};if(c.patchSize>c.imageSize){let p=`at most the image size ${c.imageSize}`;throw G("config.json","vision_config.patch_size",c.patchSize,p)}let u=s(o,"text_config","vocab_size",49408),l=o.eos_token_id??49407;if(!Number.isSafeInteger(l)||l<0)throw G("config.json","text_config.eos_token_id",l,"a token's number");return{vision:c,text:{...a(o,"text_config",512,2048,8),vocabulary:u,context:s(o,"text_config","max_position_embeddings",77),endToken:l,endRule:l===2?"largest-id":"first-end"},embedding:s(e,"","projection_dim",512)}}function uu(r){if(r.has("visual.layer1.0.conv1.weight"))throw new RangeError("Cannot load the model: it is a ResNet CLIP, only those with a vision transformer are supported");let e=(p,f)=>{let m=r.get(p);if(m?.length===f&&m.every(g=>g>0))return m;let h=m?`is [${m}]`:"is missing";throw new RangeError(`Cannot load the model: "${p}" ${h}, it needs a config.json beside it or the names of openai/CLIP's weights`)},t=p=>{let f=[...r.keys()].map(m=>m.startsWith(p)?/^(\d+)\./.exec(m.slice(p.length))?.[1]:void 0).filter(m=>m!==void 0);return new Set(f).size},[o,,n]=e("visual.conv1.weight",4),[s]=e("visual.positional_embedding",2),[a,i]=e("positional_embedding",2),[c]=e("token_embedding.weight",2),[,u]=e("text_projection",2),l=(p,f)=>({width:p,layers:t(f),heads:Math.max(1,Math.floor(p/64)),mlpWidth:e(`${f}0.mlp.c_fc.weight`,2)[0],activation:"quick_gelu",layerNormEps:1e-5});return{vision:{...l(o,"visual.transformer.resblocks."),imageSize:Math.round(Math.sqrt(s-1))*n,patchSize:n},text:{...l(i,"transformer.resblocks."),vocabulary:c,context:a,endToken:c-1,endRule:"largest-id"},embedding:u}}var ho=[.48145466,.4578275,.40821073],go=[.26862954,.26130258,.27577711];function pu(r){return{resize:r,crop:r,mean:ho,std:go,cropRule:"round"}}function fu(r,e){let t="preprocessor_config.json",o=Br(r,t,"the file");for(let i of["do_resize","do_center_crop","do_rescale","do_normalize"])if(o[i]===!1)throw G(t,i,!1,"true");if((o.resample??3)!==3)throw G(t,"resample",o.resample,"3, bicubic");let n=o.rescale_factor??1/255;if(typeof n!="number"||Math.abs(n*255-1)>1e-6)throw G(t,"rescale_factor",n,"1/255");let s=(i,c,u)=>{if(typeof i!="object"||i===null)return Nr(i??e,c,t);let l=u.map(p=>i[p]).filter(p=>p!==void 0);if(new Set(l).size!==1)throw G(t,c,JSON.stringify(i),"one size, of a square");return Nr(l[0],c,t)},a=(i,c)=>{let u=o[i]??c;if(!(Array.isArray(u)&&u.length===3&&u.every(p=>Number.isFinite(p)))||i==="image_std"&&u.includes(0))throw G(t,i,JSON.stringify(u),"three numbers");return u};return{resize:s(o.size,"size",["shortest_edge"]),crop:s(o.crop_size,"crop_size",["height","width"]),mean:a("image_mean",ho),std:a("image_std",go),cropRule:"floor"}}function rr(r,e,t){let o=(n,s)=>({width:n,layers:s,heads:n/64,mlpWidth:4*n,activation:"quick_gelu",layerNormEps:1e-5});return{vision:{...t?o(1024,24):o(768,12),imageSize:e,patchSize:r},text:{...o(t?768:512,12),vocabulary:49408,context:77,endToken:49407,endRule:"largest-id"},embedding:t?768:512}}var mu={"vit-b-32":rr(32,224,!1),"vit-b-16":rr(16,224,!1),"vit-l-14":rr(14,224,!0),"vit-l-14-336":rr(14,336,!0)};function G(r,e,t,o){let n=typeof t=="string"&&!t.startsWith("{")?`"${t}"`:String(t);return new RangeError(`Cannot read ${r}: ${e.replace(/^\./,"")} is ${n}, expected ${o}`)}function Br(r,e,t){if(typeof r=="object"&&r!==null&&!Array.isArray(r))return r;throw new RangeError(`Cannot read ${e}: ${t} is not a JSON object`)}function Nr(r,e,t="config.json"){if(Number.isSafeInteger(r)&&r>0)return r;throw G(t,e,r,"a positive whole number")}function Pr(r,e,t,o){let n=r/e,s=Math.max(1,n),a=2*s,i=Math.ceil(a)*2+1,c=new Int32Array(o),u=new Int32Array(o),l=new Int32Array(o*i),p=new Float64Array(i);for(let f=0;f<o;f++){let m=(t+f+.5)*n,h=Math.max(0,Math.trunc(m-a+.5)),g=Math.min(r,Math.trunc(m+a+.5))-h,v=0;for(let y=0;y<g;y++)v+=p[y]=gs((h+y-m+.5)*(1/s));for(let y=0;y<g;y++){let $=p[y]/v*4194304;l[f*i+y]=Math.trunc($<0?$-.5:$+.5)}c[f]=h,u[f]=g}return{starts:c,counts:u,weights:l,stride:i}}function yo(r,e,{starts:t,counts:o,weights:n,stride:s},a,i){for(let c=0;c<t.length;c++,i+=3){let u=2097152,l=2097152,p=2097152,f=c*s+o[c];for(let m=c*s,h=e+3*t[c];m<f;m++,h+=3){let g=n[m];u=u+g*r[h]|0,l=l+g*r[h+1]|0,p=p+g*r[h+2]|0}a[i]=tr(u),a[i+1]=tr(l),a[i+2]=tr(p)}}function wo(r,e,t){let{starts:o,counts:n,weights:s,stride:a}=t,i=new Uint8Array(e*o.length),c=new Int32Array(e);for(let u=0;u<o.length;u++){c.fill(2097152);for(let l=0;l<n[u];l++){let p=s[u*a+l],f=(o[u]-o[0]+l)*e;for(let m=0;m<e;m++)c[m]+=p*r[f+m]}for(let l=0,p=u*e;l<e;l++)i[p+l]=tr(c[l])}return i}function gs(r){let e=Math.abs(r);return e<1?(1.5*e-2.5)*e*e+1:e<2?(((e-5)*e+8)*e-4)*-.5:0}function tr(r){let e=r>>22;return e<0?0:e>255?255:e}function xo(r,e,t){let o={left:0,top:0,width:e,height:t};return Lr(r,vo(r),e,t,o)}function ys(r,e,t,o,n){Ir("crop",o,n);let s=new Uint8Array(3*o*n),[a,i]=[Math.max(0,e),Math.min(r.width,e+o)];for(let c=Math.max(0,t);a<i&&c<Math.min(r.height,t+n);c++){let u=r.pixels.subarray(3*(c*r.width+a),3*(c*r.width+i));s.set(u,3*((c-t)*o+a-e))}return{width:o,height:n,pixels:s}}function ws(r,e,t){let{left:o,top:n}=To(r.width,r.height,e,t);return ys(r,o,n,e,e)}function yu(r,e){let{width:t,height:o}=_o(r,e);return xo(r,t,o)}function bs(r,e,t){let o=r.width*r.height,n=new Float32Array(3*o),s=new Float32Array(256);for(let a=0;a<3;a++){let[i,c]=[Math.fround(e[a]),Math.fround(t[a])];for(let u=0;u<256;u++)s[u]=Math.fround(Math.fround(u/255)-i)/c;for(let u=0,l=a*o;u<o;u++)n[l+u]=s[r.pixels[3*u+a]]}return n}function wu(r,e){let{width:t,height:o}=_o(r,e.resize),n=To(t,o,e.crop,e.cropRule),s=n.left<0||n.top<0?ws(xo(r,t,o),e.crop,e.cropRule):Lr(r,vo(r),t,o,n);return bs(s,e.mean,e.std)}function bu(r,e,t,o={}){let{scale:n=[.08,1],ratio:s=[3/4,4/3]}=o,a=(l,p)=>l+t()*(p-l);for(let l=0;l<10;l++){let p=r*e*a(...n),f=Math.exp(a(Math.log(s[0]),Math.log(s[1]))),m=Re(Math.sqrt(p*f)),h=Re(Math.sqrt(p/f));if(m<1||m>r||h<1||h>e)continue;let g=Math.floor(t()*(e-h+1));return{left:Math.floor(t()*(r-m+1)),top:g,width:m,height:h}}let i=Math.min(Math.max(r/e,s[0]),s[1]),c=Math.min(r,Math.max(1,Re(e*i))),u=Math.min(e,Math.max(1,Re(r/i)));return{left:r-c>>1,top:e-u>>1,width:c,height:u}}function xu(r,e,t,o){let{left:n,top:s,width:a,height:i}=e;if(Ir("crop",a,i),n<0||s<0||n+a>r.width||s+i>r.height)throw new RangeError(`Cannot crop ${a}x${i} at ${n},${s}: the picture is ${r.width}x${r.height}`);let c=Lr(r,e,t,t,{left:0,top:0,width:t,height:t});return o&&xs(c),c}function Lr(r,e,t,o,n){Ir("resize",t,o);let s=Pr(e.width,t,n.left,n.width),a=Pr(e.height,o,n.top,n.height),i=n.height-1,c=a.starts[0],u=a.starts[i]+a.counts[i]-c,l=new Uint8Array(3*n.width*u);for(let f=0;f<u;f++){let m=3*((e.top+c+f)*r.width+e.left);yo(r.pixels,m,s,l,3*f*n.width)}let p=wo(l,3*n.width,a);return{width:n.width,height:n.height,pixels:p}}function xs({width:r,height:e,pixels:t}){for(let o=0;o<e;o++){let n=3*o*r,s=n+3*(r-1);for(;n<s;n+=3,s-=3)for(let a=0;a<3;a++){let i=t[n+a];t[n+a]=t[s+a],t[s+a]=i}}}function vo({width:r,height:e}){return{left:0,top:0,width:r,height:e}}function _o({width:r,height:e},t){return r<=e?{width:t,height:Math.trunc(t*e/r)}:{width:Math.trunc(t*r/e),height:t}}function To(r,e,t,o){let[n,s]=[bo(r-t,o),bo(e-t,o)];return{left:n,top:s,width:t,height:t}}function bo(r,e){return e==="floor"?Math.floor(r/2):r<0?Math.ceil(r/2):Re(r/2)}function Re(r){let e=Math.floor(r);return r-e===.5?e+e%2:Math.round(r)}function Ir(r,e,t){if(!(Number.isInteger(e)&&Number.isInteger(t)&&e>0&&t>0))throw new RangeError(`Cannot ${r} to ${e}x${t}: both sizes must be whole numbers above 0`)}var zo=class r{constructor(e,t,o,n,s){this.vocab=e;this.start=o;this.end=n;this.size=s;this.#e=new Map(t.map((a,i)=>[a,i]))}vocab;start;end;size;#e;static fromVocabulary(e,t){let o=t.split(`
`).filter(n=>n&&!n.startsWith("#version"));return new r(e,o,e["<|startoftext|>"],e["<|endoftext|>"],Object.keys(e).length)}static fromTokenizerJson(e){throw new Error("not yet")}encode(e){let t=[];for(let o of e.toLowerCase().match(/'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu)??[]){let n=[...o];for(n[n.length-1]+="</w>";n.length>1;){let s=1/0,a=-1;for(let i=0;i+1<n.length;i++){let c=this.#e.get(`${n[i]} ${n[i+1]}`)??1/0;c<s&&(s=c,a=i)}if(a<0)break;n=[...n.slice(0,a),n[a]+n[a+1],...n.slice(a+2)]}t.push(...n.map(s=>this.vocab[s]))}return t}tokenize(e,t,{pad:o=0}={}){let n=new Int32Array(e.length*t).fill(o),s=0;return e.forEach((a,i)=>{let c=[this.start,...this.encode(a),this.end];if(c.length>t)throw new RangeError("long");s=Math.max(s,c.length),n.set(c,i*t)}),{ids:n,rows:e.length,context:t,longest:s}}};var or=class{down;ups;scale;#e;#r;constructor(e,t,{scale:o,dropout:n=0,stream:s=0}){for(let a of t)if(a.shape[1]!==e.shape[0])throw new RangeError(`Cannot adapt with down [${e.shape}] and up [${a.shape}]: inner sizes are ${e.shape[0]} and ${a.shape[1]}`);this.down=e,this.ups=t,this.scale=o,this.#e=n,this.#r=s}delta(e,t){return d(()=>{let o=t===void 0?e:Rt(e,this.#e,{seed:t,stream:this.#r});return Ee(te(Ee(o,this.down),this.scale),this.up())})}weightDelta(){return d(()=>te(Y(this.up(),this.down),this.scale))}get parameters(){return[this.down,...this.ups]}},we=class extends or{up(){return this.ups[0]}},be=class extends or{up(){return d(()=>this.ups.reduce((e,t)=>I(e,t)))}};var Nu=["block-lora","lora"],Pu=["both","vision","text"],Lu={method:"block-lora",rank:8,blocks:4,alpha:1,scaling:"sqrt",dropout:.25,projections:["q","k","v"],encoder:"both",position:"all"};function nr({alpha:r,rank:e,scaling:t}){return r/(t==="sqrt"?Math.sqrt(e):e)}function vs(r,e){let t=Array.from({length:e},(u,l)=>l);if(typeof r!="string"){let u=r.find(l=>!t.includes(l));if(u===void 0&&r.length>0)return[...new Set(r)].sort((l,p)=>l-p);throw new RangeError(`Cannot adapt layer ${u??"(none given)"}: the tower's layers are 0 to ${e-1}`)}let[o,n,s]=[e/3,e*2/3,e/2].map(Math.floor),a=/^top(\d+)$/.exec(r);if(a){let u=Number(a[1]);if(u>=1&&u<=e)return t.slice(-u);throw new RangeError(`Cannot adapt the top ${u} layers: the tower has ${e}`)}let i={all:[0,e],bottom:[0,o],mid:[o,n],up:[n,e],"half-bottom":[0,s],"half-up":[s,e]};if(!Object.hasOwn(i,r))throw new RangeError(`Cannot adapt position "${r}": it must be ${Object.keys(i).join(", ")}, topN, or layer numbers`);let c=t.slice(...i[r]);if(c.length===0)throw new RangeError(`Cannot adapt position "${r}": the tower has ${e} layers`);return c}function Ce(r){return["text","vision"].flatMap(e=>r[e].blocks.flatMap((t,o)=>Object.keys(J).map(n=>({module:`${e}_model.encoder.layers.${o}.${J[n]}`,linear:t.projections[n]}))))}function _s(r,{projections:e,encoder:t,position:o}){let n=e.find(i=>!Object.hasOwn(J,i));if(n!==void 0||e.length===0)throw new RangeError(`Cannot adapt projection "${n??""}": choose from ${Object.keys(J).join(", ")}`);let s=t==="both"?["text","vision"]:[t],a=new Set(s.flatMap(i=>vs(o,r[i].blocks.length).flatMap(c=>e.map(u=>`${i}_model.encoder.layers.${c}.${J[u]}`))));return Ce(r).filter(({module:i})=>a.has(i))}var Oe=class{config;byModule;#e;#r=null;constructor(e,t,o){this.config=t,this.byModule=o,this.#e=e;for(let{adapter:n,linear:s}of this.#t())s.adapter=n}get parameters(){return[...this.byModule.values()].flatMap(({parameters:e})=>e)}get parameterCount(){return this.parameters.reduce((e,{size:t})=>e+t,0)}adapts(e){return[...this.byModule.keys()].some(t=>t.startsWith(`${e}_model.`))}get merged(){return this.#r!==null}merge(){if(this.#r)throw new Error("Cannot merge adapters twice: unmerge() them first");this.#r=new Map;for(let{adapter:e,linear:t}of this.#t())this.#r.set(t,t.weight),t.weight=S(d(()=>I(t.weight,e.weightDelta()))),t.adapter=null}unmerge(){if(!this.#r)throw new Error("Cannot unmerge adapters that are not merged");for(let{adapter:e,linear:t}of this.#t())t.weight.release(),t.weight=this.#r.get(t),t.adapter=e;this.#r=null}release(){this.#r&&this.unmerge();for(let{linear:e}of this.#t())e.adapter=null;for(let e of this.parameters)e.release()}#t(){return Ce(this.#e).filter(({module:e})=>this.byModule.has(e)).map(({module:e,linear:t})=>({adapter:this.byModule.get(e),linear:t}))}};function Iu(r,e,t){let{method:o,rank:n,blocks:s}=e;if(!Number.isInteger(n)||n<1)throw new RangeError(`Cannot adapt with rank ${n}: it must be a positive whole number`);if(!Number.isInteger(s)||s<1||n%s!==0)throw new RangeError(`Cannot split rank ${n} into ${s} blocks: the rank must be a multiple of the number of blocks`);if(o==="lora"&&s!==1)throw new RangeError(`Cannot make LoRA of ${s} blocks: it has one, use block-lora for more`);let a=new Te(t,"adapters"),i=n/s,c=new Map;for(let[u,{module:l,linear:p}]of _s(r,e).entries()){let[f,m]=p.weight.shape,h=1/Math.sqrt(m),g=a.fork(l),v=Float32Array.from({length:i*m},()=>(2*g.uniform()-1)*h),y=S(j(v,[i,m])),$=Array.from({length:s},()=>S(Fe([f,i]))),B={scale:nr(e),dropout:e.dropout,stream:u};c.set(l,o==="lora"?new we(y,$,B):new be(y,$,B))}return new Oe(r,e,c)}var Ao="base_model.model.",ko=16,Ts=.02;async function Yu(r,e,{format:t="octograd",extra:o={}}={}){let{config:n,byModule:s}=r,{method:a,scaling:i,dropout:c,blocks:u}=n,l=a==="block-lora"&&t==="octograd",p=l?n.rank:n.rank/u,f=(B,q)=>Number((B*(i==="sqrt"?Math.sqrt(q):q)).toPrecision(15)),m=f(nr(n),p),h={},[g,v]=[{},{}],y=await Promise.all([...s].map(async([B,q])=>{let sr=await Promise.all(q.parameters.map(Me=>Me.data()));return{module:B,adapter:q,values:sr}}));for(let{module:B,adapter:q,values:[sr,...Me]}of y){let ar=l?Me:[zs(Me)],Bo=Gr(l?ar.length:null);[sr,...ar].forEach((No,Dr)=>{let{shape:Po}=Dr===0?q.down:q.ups[0];h[`${Ao}${B}.${Bo[Dr]}`]={dtype:"F32",shape:Po,data:No}});let ir=q.down.shape[0]*(l?ar.length:1),Fr=f(q.scale,ir);ir!==p&&(g[B]=ir),Fr!==m&&(v[B]=Fr)}let $={peft_type:l?"BLOCK_LORA":"LORA",auto_mapping:null,base_model_name_or_path:e.name,revision:null,task_type:null,inference_mode:!0,r:p,...l&&{blocks:u},target_modules:ks(e.clip,s),lora_alpha:m,lora_dropout:c,use_rslora:i==="sqrt",rank_pattern:g,alpha_pattern:v,fan_in_fan_out:!1,bias:"none",modules_to_save:null,init_lora_weights:!0,layers_to_transform:null,layers_pattern:null,use_dora:!1,...t==="octograd"&&{octograd:{...o,visualProjection:await Eo(e.clip)}}};return{weights:br(h,{format:"pt"}),config:`${JSON.stringify($,null,2)}
`}}async function Ju(r,e,t){let o=Es(t),n=new Map(Ce(r).map(({module:p,linear:f})=>[p,f])),s=Rs(e,n,o),a=s.map(p=>({module:p,...Cs(p,o)}));for(let p of a)Ms(p,n.get(p.module),e);let{visualProjection:i,...c}=o.octograd;i!==void 0&&await Ss(r,i);let u=await Promise.all(a.map(({names:p})=>Promise.all(p.map(f=>e.floats(f))))),l=new Map;for(let[p,{module:f,names:m,scale:h}]of a.entries()){let[g,...v]=m.map(($,B)=>S(j(u[p][B],e.tensors.get($).shape))),y=o.blocks===null?we:be;l.set(f,new y(g,v,{scale:h,dropout:o.dropout,stream:p}))}return{adapters:new Oe(r,Bs(r,s,o),l),extra:c}}function Gr(r){return["lora_A.weight",...r===null?["lora_B.weight"]:Array.from({length:r},(t,o)=>`lora_B.${o}.weight`)]}function zs(r){return r[0].map((e,t)=>r.reduce((o,n)=>o+n[t],0))}function ks(r,e){let t=s=>s.slice(s.lastIndexOf(".")+1),o=new Set(Ce(r).filter(({module:s})=>!e.has(s)).map(({module:s})=>t(s))),n=[...e.keys()].map(s=>o.has(t(s))?s:t(s));return[...new Set(n)].sort()}async function Eo(r){let e=await r.weights.get("visual_projection.weight").data();return Array.from({length:ko},(t,o)=>{let n=e[Math.floor(o*e.length/ko)];return Number(n.toPrecision(6))})}async function Ss(r,e){let t=await Eo(r),o=Math.max(...t.map(Math.abs));Array.isArray(e)&&e.length===t.length&&t.every((s,a)=>Math.abs(s-e[a])<=Ts*o)||M("it was made for a model of the same sizes with other weights")}var $s=new Set(["auto_mapping","base_model_name_or_path","revision","task_type","inference_mode","peft_version","runtime_config","layers_to_transform","layers_pattern","exclude_modules","megatron_config","megatron_core","eva_config","qalora_group_size"]),As=[!0,!1,null,"gaussian","eva","orthogonal"];function Es(r){Ur(r)||M("its configuration is not an object");let{peft_type:e,r:t,blocks:o,lora_alpha:n,lora_dropout:s=0,use_rslora:a=!1,rank_pattern:i,alpha_pattern:c,target_modules:u,init_lora_weights:l=!0,octograd:p,...f}=r;e!=="LORA"&&e!=="BLOCK_LORA"&&M(`its peft_type is ${JSON.stringify(e)}, it must be LORA or BLOCK_LORA`);for(let[h,g]of Object.entries(f))$s.has(h)||Ns(g)||M(`its ${h} is ${JSON.stringify(g)}, which is not supported and would change it`);As.includes(l)||M(`its init_lora_weights is ${JSON.stringify(l)}, which changed the model too; convert it to plain LoRA with PEFT`);let m=e==="LORA"?null:jr("blocks",o);return m===null&&o!==void 0&&M("it has blocks, but its peft_type is LORA"),typeof n!="number"&&M(`its lora_alpha is ${JSON.stringify(n)}`),(typeof s!="number"||!(s>=0&&s<1))&&M(`its lora_dropout is ${JSON.stringify(s)}, it must be from 0 to below 1`),{rank:jr("r",t),blocks:m,alpha:n,scaling:a?"sqrt":"linear",dropout:s,rankPattern:$o("rank_pattern",i),alphaPattern:$o("alpha_pattern",c),targets:u,octograd:Ur(p)?p:{}}}function Rs(r,e,{blocks:t,targets:o}){let n=Gr(t),s=new Set;for(let a of r.tensors.keys()){let[,i,c]=/^base_model\.model\.(.+?)\.(lora_.+)$/.exec(a)??[];e.has(i)||M(`"${a}" is for no layer that this model can adapt, is it for another model?`),n.includes(c)||M(`"${a}" is not known, the parts are ${n.join(", ")}`),Os(i,o)||M(`"${a}" is not among its target_modules`),s.add(i)}s.size===0&&M("its file holds no adapter");for(let a of[...s].flatMap(i=>n.map(c=>Ro(i,c))))r.tensors.has(a)||M(`"${a}" is missing`);return[...e.keys()].filter(a=>s.has(a))}function Ro(r,e){return`${Ao}${r}.${e}`}function Os(r,e){return Array.isArray(e)?e.some(t=>`.${r}`.endsWith(`.${t}`)):typeof e!="string"||e==="all-linear"?!0:Oo("target_modules",e).test(r)}function Cs(r,e){let{blocks:t,scaling:o}=e,n=So("rank_pattern",e.rankPattern,r)??e.rank,s=So("alpha_pattern",e.alphaPattern,r)??e.alpha,a=jr("r",n)/(t??1);return Number.isInteger(a)||M(`its rank ${n} is not a multiple of the number of its blocks, ${t}`),{names:Gr(t).map(c=>Ro(r,c)),rank:n,inner:a,scale:nr({alpha:s,rank:n,scaling:o})}}function Ms({names:r,rank:e,inner:t},o,n){let[s,a]=o.weight.shape;for(let[i,c]of r.entries()){let u=n.tensors.get(c).shape,l=i===0?[t,a]:[s,t];R(u,l)||M(`"${c}" is [${u}], rank ${e} on this model's layer of [${s},${a}] needs [${l}]`)}}function So(r,e,t){let o=Object.keys(e).find(n=>Oo(r,`(.*\\.)?(${n})`).test(t));return o===void 0?void 0:e[o]}function Oo(r,e){try{return new RegExp(`^(?:${e})$`)}catch{M(`its ${r} has "${e}", which is not a regular expression`)}}function Bs(r,e,t){let{rank:o,blocks:n,alpha:s,scaling:a,dropout:i}=t,c=["vision","text"].filter(p=>e.some(f=>f.startsWith(p))),u=[...new Set(e.map(p=>Number(/layers\.(\d+)/.exec(p)[1])))],l=c.every(p=>r[p].blocks.every((f,m)=>u.includes(m)));return{method:n===null?"lora":"block-lora",rank:o,blocks:n??1,alpha:s,scaling:a,dropout:i,projections:Object.keys(J).filter(p=>e.some(f=>f.endsWith(J[p]))),encoder:c.length>1?"both":c[0],position:l?"all":u.sort((p,f)=>p-f)}}function $o(r,e){if(e==null)return{};if(Ur(e)&&Object.values(e).every(t=>typeof t=="number"))return e;M(`its ${r} is ${JSON.stringify(e)}, it must give each pattern a number`)}function jr(r,e){if(Number.isInteger(e)&&e>0)return e;M(`its ${r} is ${JSON.stringify(e)}, it must be a positive whole number`)}function Ns(r){return r===null||r===!1||r===""||r==="none"||typeof r=="object"&&Object.keys(r).length===0}function Ur(r){return typeof r=="object"&&r!==null&&!Array.isArray(r)}function M(r){throw new RangeError(`Cannot load the adapter: ${r}`)}function ep(r,e,t,o){if(!o.includes("{}"))throw new RangeError(`Cannot use template "${o}": it must have {} where the class name goes`);let{context:n,vocabulary:s}=r.config.text;if(e.size>s)throw new RangeError(`Cannot use a tokenizer of ${e.size} tokens: the model's vocabulary has ${s}`);let a=t.map(u=>o.replaceAll("{}",u.replaceAll("_"," "))),{ids:i,rows:c}=e.tokenize(a,n,{pad:e.end});return r.text.prompts(i,c)}var Co=class{#e;#r;#t;constructor(e,t,o){this.#e=e,this.#r=S(e.textFeatures(t)),this.#t=o}async predict(e,t=1){let o=this.#e.config.vision.imageSize,n=e.length/(3*o*o),s=Math.min(t,this.#r.shape[0]),a=d(()=>{let i=this.#e.imageFeatures(j(e,[n,3,o,o]));return Qt(Xt(this.#e.logits(i,this.#r,this.#t)),s)});try{let[i,c]=await Promise.all([a.values.data(),a.indices.data()]);return Array.from({length:n},(u,l)=>({classes:Array.from(c.subarray(l*s,(l+1)*s)),probabilities:Array.from(i.subarray(l*s,(l+1)*s))}))}finally{a.values.release(),a.indices.release()}}release(){this.#r.release()}};var dp={learningRate:2e-4,minimumRate:1e-6,weightDecay:.01,betas:[.9,.999],iterations:500,logitScale:100,labelSmoothing:0,maxNorm:0,seed:1},Ps=1685221232,Mo=class{#e;#r;#t;#o;#s;#n;#a=0;constructor(e,t,o,n){let{learningRate:s,minimumRate:a,iterations:i,weightDecay:c,betas:u}=n;this.#e=e,this.#r=t,this.#t=o,this.#o=n,this.#s=new Ve(t.parameters,{learningRate:Er(s,a,i),weightDecay:c,betas:u}),this.#n=t.adapts("text")?null:S(e.textFeatures(o))}get steps(){return this.#a}get learningRate(){let{learningRate:e,minimumRate:t,iterations:o}=this.#o;return Er(e,t,o)(this.#a)}step({pixels:e,labels:t}){let{logitScale:o,labelSmoothing:n,maxNorm:s}=this.#o,a=ge(this.#o.seed,this.#a++,Ps)[0],i=this.#e.config.vision.imageSize;return d(()=>{let c=j(e,[t.length,3,i,i]),u=j(t),l,{value:p,grads:f}=Tr(()=>{let m=this.#e.imageFeatures(c,a),h=this.#n??this.#e.textFeatures(this.#t,a),g=this.#e.logits(m,h,o);return l=S(Ls(g,u)),Et(g,u,{labelSmoothing:n})},this.#r.parameters);return ae(l),this.#s.step(s>0?io(f,s).grads:f),Ke([k(p,[1]),k(l,[1])],0)})}release(){this.#s.release(),this.#n?.release()}};function Ls(r,e){return d(()=>{let t=eo(r);return $e(b("select(0.0, 1.0, guess == label)",{guess:t,label:e},e.shape))})}export{mu as ARCHITECTURES,no as Adam,Ve as AdamW,Oe as Adapters,be as BlockLora,Co as Classifier,fo as Clip,Lu as DEFAULT_ADAPTER,dp as DEFAULT_RECIPE,pe as DeviceLostError,Pu as ENCODERS,ne as KernelError,Rr as LayerNorm,le as Linear,we as Lora,or as LowRank,Nu as METHODS,Be as NoAdapterError,xe as OutOfMemoryError,J as PROJECTIONS,Cr as Prompts,Te as Random,Or as ResidualBlock,wr as SafetensorsFile,lo as Sgd,w as Tensor,Ze as TextTower,zo as Tokenizer,Mo as Trainer,Qe as VisionTower,er as Weights,Fa as abs,Uo as adapterName,I as add,Pa as addScalar,eo as argmax,Xc as argmin,Iu as attach,Ht as attention,He as blocksOf,Vo as bytesSource,ws as centerCrop,_s as chosenSites,St as clamp,ep as classPrompts,io as clipByNorm,Ke as concat,uu as configFromOpenai,z as contiguous,qa as cos,Er as cosineAnnealing,Le as counters,ys as crop,Et as crossEntropy,ii as detach,vt as div,Rt as dropout,Bt as embedding,br as encodeSafetensors,_t as exp,We as expand,_e as flush,ke as full,Tt as gelu,zt as geluTanh,ts as globalNorm,ge as hash3,Io as init,S as keep,Ar as l2Normalize,Ut as layerNorm,ue as layerNormOf,vs as layersAt,Ee as linear,Ju as loadAdapters,Mr as loadWeights,ja as log,Uc as logSoftmax,Oi as maskedDropout,Ja as maskedFill,Y as matmul,gi as max,Ba as maximum,$e as mean,Fo as memory,yi as min,Na as minimum,De as mul,te as mulScalar,un as needsGradient,Ia as neg,At as norm,bs as normalize,wa as ones,pu as openaiPreprocess,ai as pad,lu as parseConfig,fu as parsePreprocessor,qt as patchEmbedding,Z as permute,La as pow,wu as preprocess,kt as quickGelu,bu as randomResizedCropBox,Ga as reciprocal,T as record,Ya as relu,Do as resetPeak,k as reshape,xo as resize,xu as resizedCrop,Ua as rsqrt,Yu as saveAdapters,nr as scaleOf,d as scope,yu as shortestEdge,Ka as sigmoid,Da as sin,Ce as sites,U as slice,Xt as softmax,qe as sqrt,$r as square,ni as squeeze,xt as sub,Q as sum,D as sumTo,Nt as takeToken,Wa as tanh,j as tensor,Qt as topK,N as transpose,ot as trim,si as unsqueeze,Tr as valueAndGrad,wi as variance,ht as vjp,po as weightShapes,Xa as where,x as wrt,ln as wrtAll,Fe as zeros};
//# sourceMappingURL=octograd.js.map
