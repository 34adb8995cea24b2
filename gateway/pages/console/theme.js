// Dark or light: the system's choice unless one was made here. No module, so that it runs before anything is painted.

const themes = ["system", "light", "dark"];

function currentTheme() {
  try {
    const kept = localStorage.getItem("bullmq-proxy theme");
    return themes.includes(kept) ? kept : "system";
  } catch {
    return "system"; // the browser keeps nothing for this page
  }
}

function chooseTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("bullmq-proxy theme", theme);
  } catch {
    // it holds until the page is loaded again
  }
}

document.documentElement.dataset.theme = currentTheme();
