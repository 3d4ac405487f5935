/** Of the time between two drawings, so many parts are left to everything else for each that drawing takes. */
const REST = 2;

/**
 * Draws a text that grows only as often as that leaves the window time for its user: a long list that is written quickly would
 * otherwise keep it busy from one piece to the next.
 */
export class Pace {
  /** What is to be drawn now. */
  text = $state("");
  private wanted = "";
  private resting = false;

  constructor(text: string) {
    this.text = text;
    this.wanted = text;
  }

  /** The text has grown to this. */
  offer(text: string): void {
    this.wanted = text;
    if (!this.resting && text !== this.text) {
      this.draw();
    }
  }

  private draw(): void {
    const begun = performance.now();
    this.resting = true;
    this.text = this.wanted;
    // The frame after this one begins when this one's work is done.
    requestAnimationFrame(() =>
      setTimeout(() => {
        setTimeout(() => this.rested(), (performance.now() - begun) * REST);
      }),
    );
  }

  private rested(): void {
    this.resting = false;
    this.offer(this.wanted);
  }
}
