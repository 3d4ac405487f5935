export const PLACES = ["chat", "models", "discover", "hardware", "settings"] as const;
export type Place = (typeof PLACES)[number];

/** Which of the five places is shown. */
export class Navigation {
  place = $state<Place>("chat");
  /** For Discover: the repository whose page is open. */
  repo = $state<string | null>(null);

  /** The field that wants the focus: of Settings, or of Chat. */
  field = $state<"token" | "message" | null>(null);

  /** For Chat: the model whose file was opened, until one is loaded; another object each time. */
  opened = $state.raw<{ id: string } | null>(null);

  go(place: Place): void {
    this.place = place;
  }

  /** Opens a model's page in Discover. */
  openRepo(repo: string): void {
    this.repo = repo;
    this.place = "discover";
  }

  /** Shows a model in Chat, ready to be loaded. */
  openModel(id: string): void {
    this.opened = { id };
    this.place = "chat";
  }

  /** Shows the chat, where one can write. */
  openMessage(): void {
    this.field = "message";
    this.place = "chat";
  }

  openToken(): void {
    this.field = "token";
    this.place = "settings";
  }
}
