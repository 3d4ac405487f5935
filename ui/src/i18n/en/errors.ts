/** One sentence on what happened and one on what to do, for each error code. `_numbers`: with bytes or tokens. */
export const errors = {
  fileMissing: "{subject} is not there any more. Put the file back, or remove the model from the list.",
  fileMissing_part:
    "Part {part} of {count} is missing: {subject}. Put it beside the other parts, or download the model again.",
  archiveInvalid: "{subject} is not a file of chats that Headroom exported. Nothing was imported.",
  fileInvalid: "{subject} is not a valid GGUF file. Download it again.",
  fileTruncated: "{subject} is shorter than it should be. Download it again.",
  fileTruncated_numbers: "{subject} has {available} of {needed}. Download it again.",
  fileDamaged: "{subject} is damaged: its bytes are not those on Hugging Face. Download it again.",
  fileAccess: "{subject} cannot be opened. Close other programs that use it, or check its permissions.",
  fileUnreadable:
    "{subject} could not be read to its end. Its disk may be failing: check it, then download the file again.",
  fileName:
    "{subject} cannot be used: its path has characters that are not text, or is too long. Rename the file or its folder.",
  folderAccess:
    "Nothing can be written to {subject}. Check that its disk is connected and that you may write there, or choose another download folder in Settings.",
  modelUnsupported: "This version does not run {subject}. Choose another model.",
  templateFailed:
    "The model's chat template does not take this conversation. Start a new chat or change its system prompt, or take another file of this model. ({message})",
  draftVocabulary:
    "The draft model has other tokens than the model. Choose a smaller model of the same family.",
  draftMissing:
    "The draft model is not in the library any more. Put its file back, or choose another one or none.",
  ramFull: "There is not enough RAM. Lower the context, choose a smaller model or close other programs.",
  ramFull_numbers:
    "Needs {needed} of RAM, {available} is free. Lower the context, choose a smaller model or close other programs.",
  vramFull: "There is not enough video memory. Put fewer layers on the GPU.",
  vramFull_numbers: "Needs {needed} of video memory, {available} is free. Put fewer layers on the GPU.",
  diskFull: "The disk is full. Free some space, then try again.",
  diskFull_numbers: "Needs {needed} on the disk, {available} is free. Free some space, then try again.",
  contextFull: "The conversation is longer than the context. Raise the context or start a new chat.",
  contextFull_numbers:
    "The conversation has {needed} tokens, the context holds {available}. Raise the context or start a new chat.",
  noModelLoaded: "No model is loaded. Choose one first.",
  busy: "Something else is still running. Stop it first, or wait until it is done.",
  cancelled: "Cancelled.",
  offline: "Hugging Face cannot be reached. Check the connection, then try again.",
  needsToken: "{subject} needs a token from Hugging Face. Add yours in Settings.",
  tokenRefused: "Hugging Face does not accept your token. Enter a new one in Settings, or remove it there.",
  needsTerms: "This model asks you to accept its terms on Hugging Face, then add your token.",
  notFound: "{subject} was not found. It may have been moved or deleted.",
  portTaken: "Port {subject} cannot be used: another program has it. Choose another port in Settings.",
  rateLimited: "Hugging Face asks for a pause. Try again in a moment.",
  rateLimited_wait: "Hugging Face asks for a pause. Try again in {wait}.",
  checksumMismatch: "{subject} arrived damaged and was discarded. Download it again.",
  hubAnswer: "Hugging Face gave an answer that cannot be understood. Try again later.",
  badArgument: "That value cannot be used: {message}",
  formatNotJson:
    "The schema is not valid JSON (line:column {subject}). Look for a missing comma, quote or bracket there.",
  formatInvalid: "The answer format cannot be used: {message}",
  formatTooComplex:
    "The answer format is too complex ({subject}). Use fewer alternatives, properties or repetitions.",
  formatStuck:
    "The answer cannot go on in its format. Change the answer format, or ask again for a new answer.",
  storage: "The chats cannot be read or written. Check the free space on the disk. ({message})",
  internal: "Something went wrong inside Headroom. Try again; if it stays, report this: {message}",
  theFile: "The file",
  theModel: "this model",
  it: "It",
} as const;
