import { ago } from "../../i18n/format";
import { t } from "../../i18n/index.svelte";
import type { Verified, VerifiedFile, WireError } from "../../ipc";

type Damaged = VerifiedFile & { problem: WireError };

export function damaged({ files }: Verified): Damaged[] {
  return files.filter((file): file is Damaged => file.problem !== null);
}

/** What a verification found, in one sentence; which files are damaged comes after it. */
export function verifiedSentence(verified: Verified): string {
  const { at, files } = verified;
  const [of, bad] = [files.length, damaged(verified).length];
  const compared = files.filter((file) => file.compared).length;
  const when = ago(at);
  if (bad > 0) {
    return t("models.verifiedBad", { when, n: bad, of });
  }
  if (compared === 0) {
    return t("models.verifiedHeader", { when });
  }
  return compared < of ? t("models.verifiedSome", { when, n: compared, of }) : t("models.verified", { when });
}
