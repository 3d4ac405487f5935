/** Before this nothing can be said, in milliseconds. */
const EARLY = 1000;
/** Work that takes no longer in all needs no word about it. */
const SHORT = 5000;

/** How long work still takes, from how far it was when. */
export class TimeLeft {
  private begun = { at: 0, share: 0 };
  private last = Infinity;

  /** Seconds from now to the end of work of which `share` (0..1) is done; null: too early to tell, or not worth it. */
  tell(share: number, now: number = performance.now()): number | null {
    // The first figure, a new stage, or new work.
    if (share < this.last) {
      this.begun = { at: now, share };
    }
    this.last = share;
    const [took, done] = [now - this.begun.at, share - this.begun.share];
    if (took < EARLY || done <= 0) {
      return null;
    }
    const left = (took * (1 - share)) / done;
    return took + left > SHORT ? Math.round(left / 1000) : null;
  }
}
