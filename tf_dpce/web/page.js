// The address holds the request. Links are followed without loading the page again.
const names = ["q", "folder", "taken_from", "taken_to", "sure", "where"];

// A search that takes long says so: the style sheet shows both classes after a while.
const wait = () => element.classList.add("waiting");
new MutationObserver(() => element.classList.remove("waiting")).observe(element, {
  attributes: true, attributeFilter: ["data-answer"], childList: true, subtree: true,
});

const open = () => {
  wait();
  trigger("submit");
};
const go = (link) => {
  history.pushState(null, "", link);
  open();
  scrollTo({ top: 0 });
};

// Of the fields' values to an address; an image or a similar one that is asked for stays.
window.searchLink = (link, ...values) => {
  const before = new URLSearchParams(location.search);
  const after = new URLSearchParams();
  names.forEach((name, n) => values[n] && after.set(name, values[n]));
  for (const name of ["image", "like"]) if (before.get(name)) after.set(name, before.get(name));
  history.pushState(null, "", "?" + after);
  wait();
  return ["?" + after, ...values];
};

const link = (changes) => {
  const values = new URLSearchParams(location.search);
  values.delete("page");
  for (const [name, value] of Object.entries(changes)) value ? values.set(name, value) : values.delete(name);
  return "?" + values;
};

element.addEventListener("click", (event) => {
  const anchor = event.target.closest("a.go");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
});
addEventListener("popstate", open);

const box = () => document.querySelector("#query textarea, #query input");

const say = (text) => {
  const state = document.querySelector(".drop-state");
  if (state) state.textContent = text;
};

const send = async (file) => {
  say("Sending " + file.name + " …");
  try {
    const answer = await fetch("query-image", { method: "POST", body: file });
    if (!answer.ok) return say("This file cannot be used: " + (await answer.text()));
    say("");
    go(link({ image: await answer.text(), like: "", q: box()?.value.trim() }));
  } catch {
    say("The image could not be sent: the page's server does not answer.");
  }
};

const imageOf = (list) => [...(list || [])].find((file) => file.type.startsWith("image/") || /\.(hei[cf]|avif)$/i.test(file.name)) || list?.[0];

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  const file = imageOf(event.dataTransfer?.files);
  if (file) send(file);
});
document.addEventListener("paste", (event) => {
  const file = imageOf(event.clipboardData?.files);
  if (file) send(file);
});
document.addEventListener("change", (event) => {
  if (!event.target.matches(".drop input")) return;
  if (event.target.files[0]) send(event.target.files[0]);
  event.target.value = "";
});

// "/" leads to the box, and the arrows through the images.
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    box()?.focus();
    box()?.select();
    return;
  }
  const images = [...element.querySelectorAll("a.image")];
  const here = images.indexOf(document.activeElement);
  if (typing && event.key === "ArrowDown" && typing === box() && images.length) {
    event.preventDefault();
    return images[0].focus();
  }
  if (here < 0) return;
  const top = images[here].getBoundingClientRect().top;
  const row = Math.max(1, images.filter((image) => Math.abs(image.getBoundingClientRect().top - top) < 2).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -here, End: images.length - 1 - here }[event.key];
  if (step === undefined) return;
  event.preventDefault();
  const there = here + step;
  if (there < 0) return box()?.focus();
  images[Math.min(there, images.length - 1)].focus();
});
