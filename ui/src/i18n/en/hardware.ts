export const hardware = {
  title: "Hardware",
} as const;
