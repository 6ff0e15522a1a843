/**
 * The lengths of the prompts of ImageNet's classes.
 *
 * @module
 */

/**
 * The prompt lengths of ImageNet's 1,000 classes: pairs of a number of tokens, start and end
 * included, and the number of classes that have it. Counted with OpenAI's tokenizer on "a photo of
 * a {}." and the class names of openai/CLIP's notebook `Prompt_Engineering_for_ImageNet.ipynb`.
 */
const IMAGENET_TOKENS = [
  ...[[8, 246], [9, 508], [10, 155], [11, 49], [12, 24], [13, 9], [14, 7], [15, 1], [18, 1]],
];

/**
 * Prompt lengths for `classes` classes, distributed like ImageNet's. The longest is always among
 * them.
 */
export function imagenetTokens(classes: number): number[] {
  const all = IMAGENET_TOKENS.flatMap(([tokens, count]) => Array<number>(count).fill(tokens));
  return Array.from(
    { length: classes },
    (_, i) => all[Math.floor((i + 1) * all.length / classes) - 1] ?? all[i % all.length],
  );
}
