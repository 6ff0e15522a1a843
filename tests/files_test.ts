import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import {
  assertWritable,
  makeDirectory,
  openFile,
  readBytes,
  readJson,
  readText,
  writeAtomically,
  writeTogether,
} from "../blocklora/system/files.ts";

async function inDirectory(body: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await body(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

const names = (directory: string) => [...Deno.readDirSync(directory)].map(({ name }) => name);

Deno.test("openFile() reads any range, even when reads overlap", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/bytes`;
    const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => i * i);
    await Deno.writeFile(path, bytes);
    using file = await openFile(path);
    assertEquals([file.name, file.size], [path, bytes.length]);
    const ranges = [[99_990, 10], [0, 70_000], [5, 0], [50_000, 50_000], [1, 3], [100_000, 0]];
    const read = await Promise.all(ranges.map(([offset, length]) => file.read(offset, length)));
    for (const [i, [offset, length]] of ranges.entries()) {
      assertEquals(read[i], bytes.slice(offset, offset + length));
    }
    for (const [offset, length] of [[99_999, 2], [-1, 1], [0, -1], [NaN, 1]]) {
      await assertRejects(() => file.read(offset, length), RangeError, "Cannot read bytes");
    }
    await Deno.truncate(path, 10);
    await assertRejects(() => file.read(5, 10), Error, "it became shorter while it was read");
  }));

Deno.test("openFile() says what it cannot open", () =>
  inDirectory(async (directory) => {
    await assertRejects(
      () => openFile(`${directory}/none`),
      Error,
      `Cannot open ${directory}/none: no such file or directory`,
    );
    await assertRejects(() => openFile(directory), Error, "it is not a file");
  }));

Deno.test("writeAtomically() replaces a file by text or bytes", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/a.json`;
    await writeAtomically(path, "grün");
    assertEquals(await Deno.readTextFile(path), "grün");
    await writeAtomically(path, Uint8Array.of(1, 2, 3));
    assertEquals(await Deno.readFile(path), Uint8Array.of(1, 2, 3));
    await writeAtomically(path, "");
    assertEquals(names(directory), ["a.json"]);
    assertEquals((await Deno.stat(path)).size, 0);
  }));

Deno.test("writeAtomically() fails in one line and leaves nothing behind", () =>
  inDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/file`, "");
    await Deno.mkdir(`${directory}/taken/inside`, { recursive: true });
    const refused: Record<string, string> = {
      [`${directory}/none/a`]: "no such file or directory",
      [`${directory}/file/a`]: "not a directory",
      [`${directory}/taken`]: "is a directory",
    };
    for (const [path, reason] of Object.entries(refused)) {
      const error = await assertRejects(() => writeAtomically(path, "x"), Error, reason);
      assert(error.message.startsWith(`Cannot write ${path}: `), error.message);
      assert(!error.message.includes("\n") && !error.message.includes("os error"), error.message);
    }
    assertEquals(names(directory).sort(), ["file", "taken"]);
  }));

Deno.test({
  name: "writeAtomically() keeps the old file when the disk fills up",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inDirectory(async (directory) => {
      const path = `${directory}/weights`;
      await Deno.writeTextFile(path, "old");
      const program = `${directory}/program.ts`;
      const module = new URL("../blocklora/system/files.ts", import.meta.url);
      await Deno.writeTextFile(
        program,
        `import { writeAtomically } from ${JSON.stringify(module.href)};
        await writeAtomically(${JSON.stringify(path)}, new Uint8Array(3 << 20))
          .catch((error) => console.log(error.message));`,
      );
      // A limit on the size of files (in blocks of 512 or 1024 bytes) fails like a full disk: in
      // the middle of a write.
      const shell =
        `trap "" XFSZ; ulimit -f 2048; exec "${Deno.execPath()}" run -A --no-lock "${program}"`;
      const { stdout } = await new Deno.Command("sh", { args: ["-c", shell], stderr: "null" })
        .output();
      const message = new TextDecoder().decode(stdout);
      assertEquals(message, `Cannot write ${path}: file too large\n`);
      assertEquals(await Deno.readTextFile(path), "old");
      assertEquals(names(directory).sort(), ["program.ts", "weights"]);
    }),
});

Deno.test("readText() and readJson() take UTF-8 with or without a mark, and nothing else", () =>
  inDirectory(async (directory) => {
    const write = (name: string, bytes: number[]) =>
      Deno.writeFile(join(directory, name), Uint8Array.from(bytes));
    const coffee = [...'{"a":"caf'].map((letter) => letter.charCodeAt(0));
    await write("marked.json", [0xEF, 0xBB, 0xBF, ...coffee, 0xC3, 0xA9, 0x22, 0x7D]);
    await write("latin.json", [...coffee, 0xE9, 0x22, 0x7D]);
    await write("utf16.json", [0xFF, 0xFE, 0x7B, 0, 0x7D, 0]);
    await write("broken.json", coffee);
    assertEquals(await readJson(directory, "marked.json"), { a: "café" });
    assertEquals(await readText(directory, "marked.json"), '{"a":"café"}');
    for (const name of ["latin.json", "utf16.json"]) {
      await assertRejects(() => readJson(directory, name), Error, `${name}: it is not UTF-8`);
    }
    await assertRejects(() => readJson(directory, "broken.json"), Error, "it is not JSON");
    assertEquals(await readJson(directory, "none.json"), null);
  }));

Deno.test("writeTogether() never leaves old files beside new ones, wherever it is stopped", () =>
  inDirectory(async (directory) => {
    const contents = (text: string) => ({ "a": text, "b": text, "c": text });
    const { rename } = Deno;
    for (const stop of [0, 1, 2]) {
      await writeTogether(directory, contents("old"));
      let count = 0;
      Deno.rename = (...paths) =>
        count++ === stop ? Promise.reject(new Error("stopped")) : rename(...paths);
      try {
        await assertRejects(() => writeTogether(directory, contents("new")), Error, "stopped");
      } finally {
        Deno.rename = rename;
      }
      for (const name of names(directory)) {
        assertEquals(await Deno.readTextFile(join(directory, name)), "new");
      }
      assertEquals(names(directory).length, stop);
    }
  }));

Deno.test({
  name: "openFile(), readBytes() and readText() refuse what may never end, and do not wait for it",
  ignore: Deno.build.os === "windows",
  fn: () =>
    inDirectory(async (directory) => {
      const pipe = join(directory, "pipe");
      assert((await new Deno.Command("mkfifo", { args: [pipe] }).output()).success);
      using _socket = Deno.listen({ transport: "unix", path: join(directory, "socket") });
      await Deno.symlink("/dev/zero", join(directory, "device"));
      await Deno.symlink("loop", join(directory, "loop"));
      await Deno.symlink("nothing", join(directory, "dangling"));
      await Deno.mkdir(join(directory, "folder"));
      const reasons: Record<string, RegExp> = {
        pipe: /it is not a file$/,
        socket: /it is not a file$/,
        device: /it is not a file$/,
        folder: /it is not a file$/,
        loop: /too many (levels of )?symbolic links/i,
        dangling: /no such file/i,
      };
      for (const [name, reason] of Object.entries(reasons)) {
        const path = join(directory, name);
        for (const read of [openFile, readBytes, readText]) {
          if (name === "dangling" && read === readText) {
            assertEquals(await readText(path), null);
            continue;
          }
          const { message } = await assertRejects(() => read(path) as Promise<unknown>, Error);
          assertMatch(message, reason, read.name);
        }
      }
    }),
});

Deno.test({
  name:
    "makeDirectory() and assertWritable() end where nothing may be looked at, and remove nothing that was there",
  permissions: { read: false, write: true },
  async fn() {
    const directory = await Deno.makeTempDir();
    await assertWritable(directory, 1.5);
    const old = join(directory, "old");
    await Deno.mkdir(old);
    for (const path of [old, join(directory, "a/b")]) {
      await (await makeDirectory(path))[Symbol.asyncDispose]();
    }
    await Deno.remove(old); // fails if it is gone
    await Deno.remove(directory, { recursive: true });
  },
});
