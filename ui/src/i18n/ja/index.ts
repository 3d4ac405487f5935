import { chat } from "./chat";
import { common } from "./common";
import { discover } from "./discover";
import { downloads } from "./downloads";
import { errors } from "./errors";
import { hardware } from "./hardware";
import { inspector } from "./inspector";
import { models } from "./models";
import { plan } from "./plan";
import { settings } from "./settings";

export const ja = { chat, common, discover, downloads, errors, hardware, inspector, models, plan, settings };
