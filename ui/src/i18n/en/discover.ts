export const discover = {
  title: "Discover",
} as const;
