// Signing in: the key, which stays in this tab.

import { field, h, put } from "./dom.js";

/** Ask for a key; `enter` signs in with it, and throws why it cannot. */
export function keyView(main, reason, enter) {
  const input = h("input", { type: "password", name: "key", autocomplete: "off", spellcheck: "false", required: true });
  const problem = h("p", { class: "problem", role: "alert" }, reason);
  const submit = async (event) => {
    event.preventDefault();
    try {
      await enter(input.value.trim());
    } catch (error) {
      problem.textContent = error.message;
      input.select();
    }
  };
  put(
    main,
    h(
      "form",
      { class: "card sign-in", onsubmit: submit },
      h("h1", {}, "Sign in"),
      h("p", {}, "The page does what the key may do, and nothing more. The key is kept until this tab is closed."),
      field("Key", input),
      problem,
      h("div", { class: "actions" }, h("button", { class: "main" }, "Sign in")),
    ),
  );
  input.focus();
}
