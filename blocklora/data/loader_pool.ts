/**
 * The worker threads of a loader.
 *
 * @module
 */

import type { Reply, Request, STOP } from "./loader_worker.ts";

/** A worker, and a promise that settles when the worker is safe to terminate. */
interface Thread {
  readonly worker: Worker;
  readonly rest: Promise<void>;
}

/** A pool of workers. Each is started with its first request. */
export class LoaderPool {
  /** How many generators use the pool. The last one to finish closes it. */
  users = 0;
  readonly #threads: (Thread | undefined)[];
  readonly #waiting = new Map<number, PromiseWithResolvers<Reply>>();
  #nextId = 0;
  #failure: Error | undefined;

  /** Makes a pool of `count` workers, without starting any. */
  constructor(count: number) {
    this.#threads = new Array(count);
  }

  /** Sends a request to worker number `thread`, and gives its reply. */
  ask(thread: number, request: Omit<Request, "id">): Promise<Reply> {
    if (this.#failure) return Promise.reject(this.#failure);
    const id = this.#nextId++;
    const answer = Promise.withResolvers<Reply>();
    this.#waiting.set(id, answer);
    (this.#threads[thread] ??= this.#start()).worker.postMessage({ ...request, id });
    return answer.promise;
  }

  /** Stops the workers, each after its current image. All pending requests fail. */
  async close(): Promise<void> {
    this.#fail(new Error("Cannot go on loading images: the loader has been closed"));
    const stop: typeof STOP = "stop";
    await Promise.all(this.#threads.map(async (thread) => {
      if (!thread) return;
      thread.worker.postMessage(stop);
      await thread.rest;
      thread.worker.terminate();
    }));
  }

  #start(): Thread {
    const worker = new Worker(new URL("./loader_worker.ts", import.meta.url), { type: "module" });
    const { promise: rest, resolve } = Promise.withResolvers<void>();
    worker.onmessage = ({ data }: MessageEvent<Reply | typeof STOP>) => {
      if (data === "stop") return resolve();
      this.#waiting.get(data.id)?.resolve(data);
      this.#waiting.delete(data.id);
    };
    worker.onerror = (event) => {
      event.preventDefault(); // the callers of ask() get the error instead
      this.#fail(new Error(`Cannot load images: a worker failed (${event.message})`));
      resolve();
    };
    return { worker, rest };
  }

  #fail(reason: Error): void {
    this.#failure ??= reason;
    for (const { reject } of this.#waiting.values()) reject(this.#failure);
    this.#waiting.clear();
  }
}
