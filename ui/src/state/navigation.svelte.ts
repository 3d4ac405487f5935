export const PLACES = ["chat", "models", "discover", "hardware", "settings"] as const;
export type Place = (typeof PLACES)[number];

/** Which of the five places is shown. */
export class Navigation {
  place = $state<Place>("chat");
  /** For Discover: the repository whose page is open. */
  repo = $state<string | null>(null);

  /** For Settings: the field that wants the focus. */
  field = $state<"token" | null>(null);

  go(place: Place): void {
    this.place = place;
  }

  /** Opens a model's page in Discover. */
  openRepo(repo: string): void {
    this.repo = repo;
    this.place = "discover";
  }
  openToken(): void {
    this.field = "token";
    this.place = "settings";
  }
}
