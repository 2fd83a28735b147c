// Gives the keyboard focus to the console once it is there, without a click. Not before: textual.js reports the focus
// over a socket, which has to be open.
const looking = setInterval(() => {
  const keys = document.querySelector("body.-first-byte .xterm-helper-textarea");
  if (keys) {
    clearInterval(looking);
    keys.focus();
  }
}, 50);
