export interface Toast {
  id: number;
  kind: "info" | "warning" | "error";
  text: string;
  actions: { label: string; run: () => void }[];
  testId?: string;
}
