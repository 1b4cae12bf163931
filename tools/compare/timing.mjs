/** Seconds between the tokens of an async iterable: one fewer than it yields. */
export async function tokenGaps(generated) {
  const gaps = [];
  let last;
  for await (const _ of generated) {
    const now = performance.now();
    if (last !== undefined) gaps.push((now - last) / 1000);
    last = now;
  }
  return gaps;
}
