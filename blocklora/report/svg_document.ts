/**
 * As much of a document as Plot needs to draw SVG, and no more: a complete one is a third of what
 * `train` would fetch.
 *
 * @module
 */

const SVG = "http://www.w3.org/2000/svg";

/** What text may not hold as it is. */
const ESCAPED: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\u00a0": "&#160;",
};

/** Text within an element. */
class TextNode {
  constructor(readonly text: string) {}

  get outerHTML(): string {
    return this.text.replace(/[&<>\u00a0]/g, (character) => ESCAPED[character]);
  }
}

/** An element of SVG. D3 hangs what it draws on it, as properties that nobody else reads. */
class SvgElement {
  readonly namespaceURI = SVG;
  readonly #attributes = new Map<string, string>();
  #children: (SvgElement | TextNode)[] = [];

  constructor(readonly ownerDocument: SvgDocument, readonly localName: string) {}

  setAttribute(name: string, value: unknown): void {
    this.#attributes.set(name, `${value}`);
  }

  setAttributeNS(_namespace: string, name: string, value: unknown): void {
    this.setAttribute(name, value);
  }

  getAttribute(name: string): string | null {
    return this.#attributes.get(name) ?? null;
  }

  hasAttribute(name: string): boolean {
    return this.#attributes.has(name);
  }

  removeAttribute(name: string): void {
    this.#attributes.delete(name);
  }

  set style(css: string) {
    this.setAttribute("style", css);
  }

  set textContent(text: string) {
    this.#children = [new TextNode(`${text}`)];
  }

  append(...children: (SvgElement | TextNode)[]): void {
    this.#children.push(...children);
  }

  appendChild<T extends SvgElement | TextNode>(child: T): T {
    return this.insertBefore(child, null);
  }

  insertBefore<T extends SvgElement | TextNode>(child: T, next: SvgElement | TextNode | null): T {
    const at = next ? this.#children.indexOf(next) : this.#children.length;
    this.#children.splice(at, 0, child);
    return child;
  }

  /**
   * The attribute that was set last comes first, and of values only quotes are escaped: reports
   * stay as they have always been, byte for byte.
   */
  get outerHTML(): string {
    const attributes = [...this.#attributes].reverse()
      .map(([name, value]) => ` ${name}="${value.replaceAll('"', "&quot;")}"`).join("");
    const children = this.#children.map(({ outerHTML }) => outerHTML).join("");
    const open = `<${this.localName}${attributes}`;
    return children === "" ? `${open} />` : `${open}>${children}</${this.localName}>`;
  }
}

/** A document that makes elements of SVG. */
export class SvgDocument {
  /** What D3 asks for the namespace and the document of what it makes. */
  readonly documentElement: SvgElement = new SvgElement(this, "svg");

  /** An element, whatever the namespace. */
  createElementNS(_namespace: string, name: string): SvgElement {
    return new SvgElement(this, name);
  }

  /** A piece of text. */
  createTextNode(text: string): TextNode {
    return new TextNode(text);
  }
}
