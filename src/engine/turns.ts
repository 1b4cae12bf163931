/** Work that must not overlap: one piece at a time, in the order of asking. */
export class Turns {
  /** Settles when everyone who has asked so far is done. */
  latest: Promise<unknown> = Promise.resolve();
  /** Pieces of work that have not begun. */
  waiting = 0;

  take<T>(work: () => Promise<T>): Promise<T> {
    this.waiting++;
    const begin = () => {
      this.waiting--;
      return work();
    };
    return this.append(this.latest.then(begin, begin));
  }

  /** Work that has begun and will end after all others: who asks from now on waits for it, too. */
  append<T>(work: Promise<T>): Promise<T> {
    this.latest = work;
    work.catch(() => {});
    return work;
  }
}
