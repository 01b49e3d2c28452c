// The widgets' player asks MathJax 2 to typeset; MathJax 3 does that by itself.
document.addEventListener("DOMContentLoaded", () => {
  if (window.MathJax && !window.MathJax.Hub) {
    window.MathJax.Hub = { Queue: () => {} };
  }
});
