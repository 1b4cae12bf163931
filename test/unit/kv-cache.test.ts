import { describe, expect, it } from "vitest";
import { KvCache } from "../../dist/engine/kv-cache.js";

const count = (from: number, length: number) => Array.from({ length }, (_, index) => from + index);
const settled = async (promise: Promise<unknown>) => {
  let done = false;
  promise.then(() => {
    done = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  return done;
};

describe("KvCache", () => {
  it("gives every sequence pages of its own", async () => {
    const cache = new KvCache(4, 64, true);
    const sequences = [await cache.acquire([1], 128), await cache.acquire([2], 65)];
    const pages = sequences.flatMap((sequence) => [...sequence.pages]);
    expect(new Set(pages).size).toBe(4);
  });

  it("makes a sequence wait until pages are free, first come first served", async () => {
    const cache = new KvCache(4, 64, true);
    const first = await cache.acquire([1], 200);
    const second = cache.acquire([2], 256);
    const third = cache.acquire([3], 1);
    expect(await settled(second)).toBe(false);
    expect(await settled(third)).toBe(false);
    cache.release(first, false);
    const held = await second;
    expect(held.pages.length).toBe(4);
    expect(await settled(third)).toBe(false);
    cache.release(held, false);
    expect((await third).pages.length).toBe(1);
  });

  it("continues a finished sequence up to the first difference, but never all of a prompt", async () => {
    const cache = new KvCache(8, 64, true);
    const first = await cache.acquire(count(0, 100), 150);
    first.tokens.push(...count(0, 130));
    const pages = [...first.pages];
    cache.release(first, true);

    const same = await cache.acquire(count(0, 100), 110);
    expect(same.tokens).toEqual(count(0, 99));
    expect([...same.pages]).toEqual(pages.slice(0, 2));
    cache.release(same, true);

    const other = await cache.acquire([...count(0, 70), 9, 9, 9], 100);
    expect(other.tokens).toEqual(count(0, 70));
    cache.release(other, true);
    expect((await cache.acquire([7, 7, 7], 100)).tokens).toEqual([]);
  });

  it("takes the pages of finished sequences when it needs them", async () => {
    const cache = new KvCache(2, 64, true);
    const first = await cache.acquire(count(0, 60), 128);
    first.tokens.push(...count(0, 60));
    cache.release(first, true);
    const second = await cache.acquire(count(500, 60), 128);
    expect(second.tokens).toEqual([]);
    expect(new Set(second.pages).size).toBe(2);
  });

  it("keeps nothing where rotation depends on the length", async () => {
    const cache = new KvCache(2, 64, false);
    const first = await cache.acquire(count(0, 60), 60);
    first.tokens.push(...count(0, 60));
    cache.release(first, true);
    expect((await cache.acquire(count(0, 61), 61)).tokens).toEqual([]);
  });

  it("lets a waiter give up", async () => {
    const cache = new KvCache(1, 64, true);
    const first = await cache.acquire([1], 64);
    const controller = new AbortController();
    const waiting = cache.acquire([2], 64, controller.signal);
    controller.abort(new Error("no more"));
    await expect(waiting).rejects.toThrow("no more");
    cache.release(first, false);
    expect((await cache.acquire([3], 64)).pages.length).toBe(1);
  });

  it("knows which pages hold tokens, and which a longer sequence would need", async () => {
    const cache = new KvCache(8, 64, true);
    const first = await cache.acquire([1], 256);
    first.tokens.push(...count(0, 65));
    const second = await cache.acquire([2], 64);
    const inUse = (flags: Uint8Array) => [...flags.keys()].filter((page) => flags[page]);
    expect(inUse(cache.pagesInUse())).toEqual([...first.pages.subarray(0, 2)]);
    expect(inUse(cache.pagesInUse(second, 1))).toEqual([...first.pages.subarray(0, 2), ...second.pages]);
    expect(inUse(cache.pagesOfActive())).toEqual([...first.pages, ...second.pages]);

    expect(cache.covers(first, 65)).toBe(false);
    cache.setCommitted(cache.pagesInUse(first, 128));
    expect([cache.covers(first, 128), cache.covers(first, 129), cache.covers(second, 1)]).toEqual([true, false, false]);
    cache.release(first, false);
    expect(inUse(cache.pagesInUse())).toEqual([]);
  });

  it("gives out committed pages before others", async () => {
    const cache = new KvCache(6, 64, true);
    cache.setCommitted(Uint8Array.of(0, 0, 0, 1, 1, 0));
    expect([...(await cache.acquire([1], 192)).pages]).toEqual([3, 4, 0]);
  });

  it("lets finished sequences keep their pages up to a limit when others come, and forgets them on demand", async () => {
    const cache = new KvCache(16, 64, true);
    cache.setLimits(16, 4);
    for (const start of [0, 1000, 2000]) {
      const sequence = await cache.acquire(count(start, 128), 128);
      sequence.tokens.push(...count(start, 128));
      cache.release(sequence, true);
    }
    const inUse = () => cache.pagesInUse().reduce((sum, flag) => sum + flag, 0);
    expect(inUse()).toBe(4);
    const continued = await cache.acquire(count(1000, 128), 128);
    expect(continued.tokens).toHaveLength(127);
    expect(cache.dropFinished()).toBe(true);
    expect(cache.dropFinished()).toBe(false);
    expect(inUse()).toBe(2);
  });

  it("keeps a limit below what is reserved", async () => {
    const cache = new KvCache(16, 64, true);
    cache.setLimits(2, 2);
    expect(() => cache.acquire([1], 129)).toThrow(/do not fit/);
    const first = await cache.acquire([1], 128);
    const second = cache.acquire([2], 1);
    expect(await settled(second)).toBe(false);
    cache.setLimits(3, 2);
    expect((await second).pages).toHaveLength(1);
    cache.release(first, false);
  });

  it("refuses more than it has", () => {
    expect(() => new KvCache(1, 64, true).acquire([1], 65)).toThrow(/do not fit/);
  });
});
