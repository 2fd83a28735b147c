// Keys go to the console as soon as it is there, without a click first. Not before: textual.js tells the focus to a
// socket that has to be open for it.
const looking = setInterval(() => {
  const keys = document.querySelector("body.-first-byte .xterm-helper-textarea");
  if (keys) {
    clearInterval(looking);
    keys.focus();
  }
}, 50);
