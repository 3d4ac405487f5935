/** So near to the end counts as being there. */
const NEAR = 48;

/** Keeps a scroller at its end while the reader is there, and only then. */
export class Stick {
  /** The reader is at the end. */
  there = $state(true);
  private scroller: HTMLElement | undefined;

  /** For `{@attach}` on the scroller, whose first child holds the content. */
  attach = (scroller: HTMLElement): (() => void) => {
    this.scroller = scroller;
    const onscroll = () => {
      this.there = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR;
    };
    // Growth moves the end away without a scroll event: what counts is where the reader was before it.
    const observer = new ResizeObserver(() => {
      if (this.there) {
        this.toEnd();
      }
    });
    scroller.addEventListener("scroll", onscroll, { passive: true });
    observer.observe(scroller);
    if (scroller.firstElementChild) {
      observer.observe(scroller.firstElementChild);
    }
    return () => {
      observer.disconnect();
      scroller.removeEventListener("scroll", onscroll);
    };
  };

  toEnd(): void {
    this.there = true;
    if (this.scroller) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
    }
  }
}
