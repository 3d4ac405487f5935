export const inspector = {
  title: "Model",
} as const;
