/**
 * Makes the prompts of classes, and reports classes that cannot be told apart.
 *
 * @module
 */

import type { Prompts } from "../../clip/text.ts";
import type { OpenedModel } from "../models/open_model.ts";
import type { Console } from "../system/console.ts";
import { classPrompts, sameClasses } from "./classifier.ts";

/** The prompts of `classes`. Prints a note if two of them are the same. */
export function promptsFor(
  { model, tokenizer }: Pick<OpenedModel, "model" | "tokenizer">,
  classes: readonly string[],
  template: string,
  console: Console,
): Prompts {
  const same = sameClasses(classes, template);
  if (same) {
    console.note(
      `the classes ${
        same.map((name) => JSON.stringify(name)).join(" and ")
      } have the same prompt: ` +
        "no image can be told to be of one and not of the other",
    );
  }
  return classPrompts(model, tokenizer, classes, template);
}
