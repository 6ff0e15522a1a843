/**
 * How long the prompts of ImageNet's classes are.
 *
 * @module
 */

/**
 * How many tokens the prompts of ImageNet's 1,000 classes have, start and end included: pairs of
 * tokens and classes. Counted with OpenAI's tokenizer on "a photo of a {}." and the class names of
 * openai/CLIP's notebook `Prompt_Engineering_for_ImageNet.ipynb`.
 */
const IMAGENET_TOKENS = [
  ...[[8, 246], [9, 508], [10, 155], [11, 49], [12, 24], [13, 9], [14, 7], [15, 1], [18, 1]],
];

/**
 * Prompt lengths of so many classes, spread as ImageNet's are; the longest is always among them.
 */
export function imagenetTokens(classes: number): number[] {
  const all = IMAGENET_TOKENS.flatMap(([tokens, count]) => Array<number>(count).fill(tokens));
  return Array.from(
    { length: classes },
    (_, i) => all[Math.floor((i + 1) * all.length / classes) - 1] ?? all[i % all.length],
  );
}
