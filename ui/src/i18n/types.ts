/** The words of one area in another language: the same keys, all of them. */
export type Words<T> = { readonly [K in keyof T]: string };

type NameOf<S extends string> = S extends `${infer Name}|${string}` ? Name : S;

/** The names in `{name}` and `{n|one|other}`. */
export type PlaceholderNames<S extends string> = S extends `${string}{${infer Inner}}${infer Rest}`
  ? NameOf<Inner> | PlaceholderNames<Rest>
  : never;

export type Values = Record<string, string | number>;
