import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../", import.meta.url);

/** A user's program, which has no configuration, and no permission except to import. */
const PROGRAM = (host: string) => `
import { add, AdamW, init, matmul, mean, memory, scope } from "${host}/mod.ts";
import { square, sub, tensor, valueAndGrad } from "${host}/mod.ts";
await init();
const x = tensor([[1, 2], [3, 4], [5, 6]]);
const y = tensor([[1], [2], [3]]);
const w = tensor([[0.5], [0.5]]);
const bias = tensor([0]);
const optimizer = new AdamW([w, bias], { learningRate: 0.1 });
const losses = [];
for (let step = 0; step < 3; step++) {
  const loss = scope(() => {
    const forward = () => add(matmul(x, w), bias);
    const { value, grads } = valueAndGrad(() => mean(square(sub(forward(), y))), [w, bias]);
    optimizer.step(grads);
    return value;
  });
  losses.push(await loss.item());
  loss.release();
}
optimizer.release();
for (const t of [x, y, w, bias]) t.release();
console.log(JSON.stringify({ losses, live: memory().liveBuffers }));
`;

Deno.test("mod.ts runs from a URL, with no configuration and --allow-import only", async () => {
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, async (request) => {
    const { pathname } = new URL(request.url);
    const file = await Deno.readFile(new URL(`.${pathname}`, ROOT)).catch(() => null);
    const type = pathname.endsWith(".ts") ? "application/typescript" : "text/plain";
    return file
      ? new Response(file, { headers: { "content-type": type } })
      : new Response("not found", { status: 404 });
  });
  const directory = await Deno.makeTempDir();
  try {
    const host = `127.0.0.1:${server.addr.port}`;
    await Deno.writeTextFile(`${directory}/program.ts`, PROGRAM(`http://${host}`));
    const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--check", "--no-lock", "--no-config", `--allow-import=${host}`, "program.ts"],
      cwd: directory,
    }).output();
    assert(success, new TextDecoder().decode(stderr));
    const { losses, live } = JSON.parse(new TextDecoder().decode(stdout));
    assertEquals(losses.length, 3);
    // Errors 0.5, 1.5 and 2.5: the mean of their squares is 35 / 12.
    assert(Math.abs(losses[0] - 35 / 12) < 1e-5, `${losses}`);
    assert(losses[2] < losses[1] && losses[1] < losses[0], `the loss did not fall: ${losses}`);
    assertEquals(live, 0);
  } finally {
    await server.shutdown();
    await Deno.remove(directory, { recursive: true });
  }
});
