/**
 * Opens mutants, one after the other, and tells what became of each.
 *
 * @module
 */

import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { inOneLine } from "../../blocklora/commands/command.ts";
import { openDataset } from "../../blocklora/data/dataset.ts";
import { decodeImage } from "../../blocklora/data/decode.ts";
import { EMBEDDED_DATA } from "../../blocklora/data/open_data.ts";
import { METHODS } from "../../blocklora/methods/lookup.ts";
import { openModel } from "../../blocklora/models/open_model.ts";
import { pageOf } from "../../blocklora/report/page.ts";
import { readRuns } from "../../blocklora/report/runs.ts";
import { Console } from "../../blocklora/system/console.ts";
import { openAdapted } from "../../blocklora/training/adapted_model.ts";
import { initDry } from "../../tensor/device.ts";
import { Random } from "../../tensor/random.ts";
import { mutant } from "./mutate.ts";

/** A directory of files, each of which is mutated by itself, and what opens them. */
interface Subject {
  readonly files: readonly string[];
  open(directory: string): Promise<unknown>;
}

const REQUEST = { model: undefined, revision: undefined, offline: true, tokenizer: undefined };

async function openedModel(path: string): Promise<void> {
  const { model, tokenizer } = await openModel(path);
  tokenizer.encode("a photo of a Café, it's <|endoftext|> 12");
  model.release();
}

async function openedAdapter(directory: string): Promise<void> {
  const quiet = new Console(true);
  const model = join(directory, "../transformers");
  const { adapters, model: base } = await openAdapted(directory, { ...REQUEST, model }, quiet);
  adapters.release();
  base.release();
}

const decoded = (name: string): Subject => ({
  files: [name],
  open: async (directory) => await decodeImage(await Deno.readFile(join(directory, name)), name),
});

const SUBJECTS: Readonly<Record<string, Subject>> = {
  transformers: {
    files: [
      ...["config.json", "preprocessor_config.json", "tokenizer_config.json", "vocab.json"],
      ...["merges.txt", "added_tokens.json", "model.safetensors"],
    ],
    open: openedModel,
  },
  sharded: { files: ["model.safetensors.index.json", "tokenizer.json"], open: openedModel },
  open_clip: { files: ["open_clip_config.json"], open: openedModel },
  torch: {
    files: ["pytorch_model.bin"],
    open: openedModel,
  },
  ...Object.fromEntries(METHODS.map(({ name }) => [name, {
    files: ["adapter_config.json", "adapter_model.safetensors"],
    open: openedAdapter,
  }])),
  data: {
    files: ["classnames.json", "split.json"],
    open: (directory) => openDataset(directory, { split: join(directory, "split.json") }),
  },
  folders: { files: ["classnames.json"], open: (directory) => openDataset(directory) },
  run: {
    files: ["result.json"],
    async open(directory) {
      const data = fileURLToPath(EMBEDDED_DATA);
      return await pageOf(await readRuns([directory]), new Map([["things", data]]));
    },
  },
  png: decoded("image.png"),
  jpeg: decoded("image.jpg"),
  webp: decoded("image.webp"),
};

/** What became of a mutant: it was read, or refused by an error of some class, or neither. */
export interface Fate {
  readonly name: string;
  readonly kind: string;
  readonly wrong?: string;
}

/** What JavaScript and Deno say where ours would have said what is wrong with a file. */
const FOREIGN =
  /^Cannot ((read|set) propert|destructure|access|mix|convert (undefined|object|a BigInt))/;

async function fateOf(root: string, number: number): Promise<Fate> {
  const random = new Random(1, "fuzz").fork(number);
  const names = Object.keys(SUBJECTS);
  const subject = names[random.below(names.length)];
  const { files, open } = SUBJECTS[subject];
  const file = files[random.below(files.length)];
  const path = join(root, subject, file);
  const name = `${subject}/${file}`;
  const original = await Deno.readFile(path).catch(() => new TextEncoder().encode("{}"));
  try {
    await Deno.writeFile(path, mutant(file, original, random));
    await open(join(root, subject));
    return { name, kind: "read" };
  } catch (error) {
    if (!(error instanceof Error)) return { name, kind: "?", wrong: `${error} was thrown` };
    const { message, name: kind, stack } = error;
    const isOurs = /^Cannot .{1,1100}$/.test(inOneLine(message)) && !FOREIGN.test(message);
    return { name, kind, ...(isOurs ? {} : { wrong: stack?.slice(0, 1500) ?? message }) };
  } finally {
    await Deno.writeFile(path, original);
  }
}

/** What the worker is asked for: mutants of the files below a directory. */
export interface Order {
  readonly root: string;
  readonly first: number;
  readonly count: number;
}

/** What the worker tells: a mutant that it begins with, or what became of it; null at the end. */
export type Told =
  | { readonly number: number; readonly fate?: Fate; readonly rss?: number }
  | null;

const scope = globalThis as unknown as {
  postMessage(told: Told): void;
  onmessage: (event: MessageEvent<Order>) => void;
};

scope.onmessage = async ({ data: { root, first, count } }) => {
  initDry();
  // What is not read as it is could not show what mutants do.
  for (const [name, { open }] of Object.entries(SUBJECTS)) await open(join(root, name));
  for (let number = first; number < first + count; number++) {
    scope.postMessage({ number });
    const fate = await fateOf(root, number);
    scope.postMessage({ number, fate, rss: Deno.memoryUsage().rss });
  }
  scope.postMessage(null);
};
