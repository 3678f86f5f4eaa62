// The session so far: figures, and each episode with its last picture.

const SIGNS = { success: "✓", failure: "✗", unknown: "?", discarded: "–" };

function element(kind, className, text = "") {
  return Object.assign(document.createElement(kind), { className, textContent: text });
}

const percent = (share, any) => (any ? `${Math.round(100 * share)}%` : "–");

export function statistics(place, s) {
  const rows = [
    ["episodes", s.episodes, `discarded: ${s.discarded}`],
    ["success", percent(s.success_rate, s.episodes), `${s.successes} ✓  ${s.failures} ✗  ${s.unknown} ?`],
    ["human drove", percent(s.intervention_rate, s.episodes), `takeovers: ${s.takeovers}`],
    ["cycle time", s.cycle_s ? `${s.cycle_s.toFixed(1)} s` : "–", "mean of successes"],
    ["human time", minutes(s.human_s), "in episodes"],
  ];
  place.replaceChildren(
    ...rows.map(([name, value, more]) => {
      const box = element("div", "figure");
      box.append(element("span", "name", name), element("b", "", `${value}`), element("span", "more", more));
      return box;
    }),
  );
}

export function minutes(seconds) {
  const whole = Math.floor(seconds ?? 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export class Episodes {
  constructor(place) {
    this.place = place;
    this.shown = new Map(); // ordinal to [what it said, card]
  }

  draw(episodes) {
    if (!episodes.length && !this.place.children.length) {
      this.place.append(element("p", "empty", "No episode has ended yet."));
    }
    for (const episode of episodes) {
      const said = JSON.stringify(episode);
      const [before, old] = this.shown.get(episode.ordinal) ?? [];
      if (before === said) continue;
      const fresh = card(episode);
      if (old) old.replaceWith(fresh);
      else this.place.prepend(fresh); // newest first
      this.shown.set(episode.ordinal, [said, fresh]);
      this.place.querySelector(".empty")?.remove();
    }
  }
}

function card(episode) {
  const root = element("article", `card ${episode.outcome}`);
  root.dataset.ordinal = episode.ordinal;
  const picture = element("img", "");
  picture.alt = "";
  picture.addEventListener("error", () => picture.classList.add("missing"));
  picture.src = `/thumbnails/${episode.ordinal}.jpg`;
  const title = element("h3", "", `${SIGNS[episode.outcome] ?? "?"} ${episode.ordinal}`);
  title.append(element("span", "outcome", episode.outcome));
  const share = percent(episode.human_s / Math.max(episode.seconds, 1e-9), episode.seconds);
  const times = element("p", "", `${episode.seconds.toFixed(1)} s · human ${share} · ${episode.takeovers}×`);
  root.append(picture, title, times, element("p", "words", episode.instruction));
  if (episode.note) root.append(element("p", "note", episode.note));
  return root;
}
