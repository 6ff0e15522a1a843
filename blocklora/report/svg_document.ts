/**
 * The small subset of the DOM that Plot needs to draw SVG. A complete DOM would be a third of all
 * that `train` has to download.
 *
 * @module
 */

import { printable } from "../system/console.ts";

const SVG = "http://www.w3.org/2000/svg";

/** Characters that must be escaped in text. */
const ESCAPED: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\u00a0": "&#160;",
};

/** Characters that must be escaped in the values of attributes. */
const ESCAPED_IN_VALUES: Readonly<Record<string, string>> = { ...ESCAPED, '"': "&quot;" };

/** A text node. */
class TextNode {
  constructor(readonly text: string) {}

  get outerHTML(): string {
    return printable(this.text).replace(/[&<>\u00a0]/g, (character) => ESCAPED[character]);
  }
}

/** An SVG element. D3 also stores its data on elements, in properties that nothing else reads. */
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
   * The element as markup. The attribute that was set last comes first, so that reports remain the
   * same as those of earlier versions.
   */
  get outerHTML(): string {
    const attributes = [...this.#attributes].reverse().map(([name, value]) => {
      const text = printable(value)
        .replace(/[&<>"\u00a0]/g, (character) => ESCAPED_IN_VALUES[character]);
      return ` ${name}="${text}"`;
    }).join("");
    const children = this.#children.map(({ outerHTML }) => outerHTML).join("");
    const open = `<${this.localName}${attributes}`;
    return children === "" ? `${open} />` : `${open}>${children}</${this.localName}>`;
  }
}

/** A document that creates SVG elements. */
export class SvgDocument {
  /** The element from which D3 takes the namespace and the document of new elements. */
  readonly documentElement: SvgElement = new SvgElement(this, "svg");

  /** Creates an SVG element. The namespace is ignored. */
  createElementNS(_namespace: string, name: string): SvgElement {
    return new SvgElement(this, name);
  }

  /** Creates a text node. */
  createTextNode(text: string): TextNode {
    return new TextNode(text);
  }
}
