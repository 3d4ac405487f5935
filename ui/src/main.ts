import "./design/tokens.css";
import "./design/base.css";
import { mount } from "svelte";
import Root from "./App.svelte";
import { connect } from "./ipc";
import { App } from "./state/app.svelte";
import { applyTheme } from "./state/theme";

applyTheme("system");
const target = document.getElementById("app");
if (target) {
  mount(Root, { target, props: { app: new App(await connect()) } });
}
