// A stand-in until the real one lands.
export interface TokenBatch { readonly ids: Int32Array<ArrayBuffer>; readonly rows: number; readonly context: number; readonly longest: number }
export class Tokenizer {
  readonly #ranks: Map<string, number>;
  private constructor(readonly vocab: Record<string, number>, merges: string[], readonly start: number, readonly end: number, readonly size: number) {
    this.#ranks = new Map(merges.map((m, i) => [m, i]));
  }
  static fromVocabulary(vocab: Record<string, number>, merges: string): Tokenizer {
    const lines = merges.split("\n").filter((l) => l && !l.startsWith("#version"));
    return new Tokenizer(vocab, lines, vocab["<|startoftext|>"], vocab["<|endoftext|>"], Object.keys(vocab).length);
  }
  static fromTokenizerJson(_json: unknown): Tokenizer { throw new Error("not yet"); }
  encode(text: string): number[] {
    const out: number[] = [];
    for (const word of text.toLowerCase().match(/'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu) ?? []) {
      let parts = [...word]; parts[parts.length - 1] += "</w>";
      while (parts.length > 1) {
        let best = Infinity, at = -1;
        for (let i = 0; i + 1 < parts.length; i++) { const r = this.#ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity; if (r < best) { best = r; at = i; } }
        if (at < 0) break;
        parts = [...parts.slice(0, at), parts[at] + parts[at + 1], ...parts.slice(at + 2)];
      }
      out.push(...parts.map((p) => this.vocab[p]));
    }
    return out;
  }
  tokenize(texts: readonly string[], context: number, { pad = 0 }: { truncate?: boolean; pad?: number } = {}): TokenBatch {
    const ids = new Int32Array(texts.length * context).fill(pad); let longest = 0;
    texts.forEach((t, i) => { const e = [this.start, ...this.encode(t), this.end]; if (e.length > context) throw new RangeError("long"); longest = Math.max(longest, e.length); ids.set(e, i * context); });
    return { ids, rows: texts.length, context, longest };
  }
}
