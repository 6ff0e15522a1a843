/**
 * Sends requests to the Hugging Face hub.
 *
 * @module
 */

import { hubToken, longestSilence } from "./hub_environment.ts";

/** The hub cannot be reached. The cache may still have what is needed. */
export class UnreachableError extends Error {}

/** The hub has no such repository, revision or file. */
export class AbsentError extends Error {}

/** What a request is about. */
export interface Subject {
  /** `OWNER/NAME`. */
  readonly id: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
  /** The URL of the hub. */
  readonly endpoint: string;
}

/** Answers of a hub that is busy. */
const BUSY = [429, 502, 503, 504];

/** How often a busy hub is asked, and the longest time in seconds that it may ask to wait. */
const [ATTEMPTS, LONGEST_WAIT] = [4, 120];

/**
 * A `fetch` that sends the user's token to the hub, waits where the hub asks to, and ends when the
 * hub is silent. Its errors tell the user what to do.
 */
export function requester(subject: Subject): typeof fetch {
  const { id, endpoint } = subject;
  return async (input, init) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init?.headers);
    const token = await hubToken();
    // No other host gets the token, whatever the hub's answer says: `fetch` drops it from
    // redirects to one.
    const isHub = url.origin === new URL(endpoint).origin;
    if (token && isHub) headers.set("Authorization", `Bearer ${token}`);
    for (let attempt = 1;; attempt++) {
      const response = await watched(subject, url, { ...init, headers });
      if (response.ok) return response;
      await response.body?.cancel();
      const { status } = response;
      const wait = askedWait(response.headers) ?? 2 ** (attempt - 1);
      if (!BUSY.includes(status) || attempt === ATTEMPTS || wait > LONGEST_WAIT) {
        throw refusal(subject, status, { token, wait });
      }
      if (wait > 1) console.warn(`${endpoint} answers ${status}: ${id} waits ${wait} s`);
      await new Promise((resolve) => setTimeout(resolve, 1000 * wait));
    }
  };
}

/** Warns if the user's token will travel as plain text to another machine. */
export async function warnOfPlainText(endpoint: string): Promise<void> {
  const { protocol, hostname, origin } = new URL(endpoint);
  const isLocal = /^(localhost|127\.[\d.]+|\[::1\])$/.test(hostname);
  if (protocol === "https:" || isLocal || !await hubToken()) return;
  console.warn(`The token of the hub is sent to ${origin} as plain text`);
}

/** Seconds after which the hub wants to be asked again. */
function askedWait(headers: Headers): number | null {
  const after = headers.get("retry-after") ?? /\bt=(\d+)/.exec(headers.get("ratelimit") ?? "")?.[1];
  if (!after) return null;
  const seconds = /^\d+$/.test(after) ? Number(after) : (Date.parse(after) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(0, Math.ceil(seconds));
}

/** Fetches, and ends with an error when nothing arrives for too long, also within the body. */
async function watched(
  { id, endpoint }: Subject,
  url: URL,
  init: RequestInit,
): Promise<Response> {
  const silence = longestSilence();
  const controller = new AbortController();
  const silent = new UnreachableError(
    `Cannot fetch "${id}": ${url.host} has sent nothing for ${silence / 1000} s, ` +
      "try again later",
  );
  let timer: ReturnType<typeof setTimeout> | undefined;
  const arm = () => {
    clearTimeout(timer);
    const armed = timer = setTimeout(() => controller.abort(silent), silence);
    Deno.unrefTimer(armed); // what is no longer read must not keep the process
  };
  arm();
  let response: Response;
  try {
    response = await fetch(url, { ...init, signal: controller.signal });
  } catch (cause) {
    if (cause === silent) throw silent;
    if (cause instanceof Deno.errors.NotCapable) {
      throw new Error(
        `Cannot fetch "${id}": ${cause.message}; the tasks reach huggingface.co alone, ` +
          "see README.md for other hosts",
      );
    }
    throw new UnreachableError(
      `Cannot fetch "${id}": ${endpoint} cannot be reached, ` +
        "check the network, or pass a local directory",
      { cause },
    );
  } finally {
    clearTimeout(timer);
  }
  if (!response.ok || !response.body) return response;
  if (/^text\/html\b/.test(response.headers.get("content-type") ?? "")) {
    await response.body.cancel();
    throw new UnreachableError(
      `Cannot fetch "${id}": ${url.host} answers with a web page, ` +
        "which may be the login page of a network or a proxy",
    );
  }
  arm();
  const body = response.body.pipeThrough(
    new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform(chunk, to) {
        arm();
        to.enqueue(chunk);
      },
      flush: () => clearTimeout(timer),
    }),
  );
  return new Response(body, response);
}

/** The error for an answer that is not what was asked for. */
function refusal(
  { id, revision, endpoint }: Subject,
  status: number,
  { token, wait }: { token: string | undefined; wait: number },
): Error {
  if (status === 401 || status === 403) {
    return new Error(
      `Cannot fetch "${id}": ${endpoint} refuses access (${status}), check the name; ` +
        `if it is gated or private, accept its terms there and ${
          token ? "check HF_TOKEN or hf auth whoami" : "set HF_TOKEN or use hf auth login"
        }`,
    );
  }
  if (status === 404) {
    return new AbsentError(
      `Cannot fetch "${id}": there is no such path here, ` +
        `and ${endpoint} has no such model with revision ${revision}`,
    );
  }
  const when = wait > LONGEST_WAIT ? `in ${wait} s` : "later";
  return new UnreachableError(
    `Cannot fetch "${id}": ${endpoint} answers ${status}, try again ${when}`,
  );
}
