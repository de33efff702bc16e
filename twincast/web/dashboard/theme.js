/*
 * Light, dark, or as the system has it. A classic script, loaded before the first paint: a module would run after it
 * and flash the other theme.
 */
(() => {
  const KEY = "twincast.theme";
  const CHOICES = ["system", "light", "dark"];

  const read = () => {
    try {
      const stored = localStorage.getItem(KEY);
      return CHOICES.includes(stored) ? stored : "system";
    } catch {
      return "system"; // storage may be forbidden; the page works without
    }
  };

  const set = (choice) => {
    document.documentElement.dataset.theme = choice;
    try {
      localStorage.setItem(KEY, choice);
    } catch {
      return; // for this visit only, then
    }
  };

  document.documentElement.dataset.theme = read();
  globalThis.twincastTheme = {
    get choice() {
      return document.documentElement.dataset.theme;
    },
    next() {
      set(CHOICES[(CHOICES.indexOf(this.choice) + 1) % CHOICES.length]);
      return this.choice;
    },
  };
})();
