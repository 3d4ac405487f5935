import { chat } from "./chat";
import { common } from "./common";
import { discover } from "./discover";
import { errors } from "./errors";
import { hardware } from "./hardware";
import { inspector } from "./inspector";
import { models } from "./models";
import { plan } from "./plan";
import { settings } from "./settings";

export const ja = { chat, common, discover, errors, hardware, inspector, models, plan, settings };
