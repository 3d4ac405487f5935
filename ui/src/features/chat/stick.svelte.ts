/** Who comes so near to the end is there. */
const NEAR = 48;

/** Keeps a scroller at its end while the reader is there, and only then. */
export class Stick {
  /** The reader is at the end. */
  there = $state(true);
  private scroller: HTMLElement | undefined;
  /** Where the scroller was last, as far as we know. */
  private top = 0;

  /** For `{@attach}` on the scroller, whose first child holds the content. */
  attach = (scroller: HTMLElement): (() => void) => {
    this.scroller = scroller;
    const onscroll = () => {
      const upwards = scroller.scrollTop < this.top;
      this.top = scroller.scrollTop;
      // Scroll events come late: by then the text may have grown and its end be far. Only a reader moves upwards, and be
      // it by a line, which is nearer than what counts for those who come back; a text that shrinks ends where it ends.
      const left = scroller.scrollHeight - this.top - scroller.clientHeight;
      this.there = upwards ? left <= 1 : this.there || left < NEAR;
    };
    // The web view scrolls to where the end is now: a text that is written quickly is longer when it comes there.
    const onkeydown = (event: KeyboardEvent) => {
      if (event.key === "End" && event.target === scroller) {
        event.preventDefault();
        this.toEnd();
      }
    };
    const observer = new ResizeObserver(() => {
      if (this.there) {
        this.toEnd();
      }
    });
    scroller.addEventListener("scroll", onscroll, { passive: true });
    scroller.addEventListener("keydown", onkeydown);
    observer.observe(scroller);
    if (scroller.firstElementChild) {
      observer.observe(scroller.firstElementChild);
    }
    return () => {
      observer.disconnect();
      scroller.removeEventListener("scroll", onscroll);
      scroller.removeEventListener("keydown", onkeydown);
    };
  };

  toEnd(): void {
    this.there = true;
    if (this.scroller) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.top = this.scroller.scrollTop;
    }
  }
}
