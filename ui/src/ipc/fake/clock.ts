/** Waits, so that the fake behaves like a program that takes its time. Tests pass a pace of 0. */
export function pause(milliseconds: number): Promise<void> {
  return new Promise((done) => setTimeout(done, milliseconds));
}
