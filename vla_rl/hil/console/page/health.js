// How the streams are doing, and what was said.

const LEVELS = ["well", "warning", "error"];

// Those that are ill come first: the list may be longer than its place.
export function streams(body, rows) {
  body.replaceChildren(
    ...rows.toSorted((a, b) => a.well - b.well).map((stream) => {
      const row = document.createElement("tr");
      row.className = stream.well ? "well" : "ill";
      const age = stream.age_s === null ? "never" : old(stream.age_s);
      const rate = stream.rate_hz === null ? "" : `${stream.rate_hz.toFixed(0)} / s`;
      const name = stream.name.replace(/\/(image_raw|compressed)$/, "");
      for (const text of [stream.well ? "●" : "▲", name, rate, age]) {
        row.appendChild(document.createElement("td")).textContent = text;
      }
      return row;
    }),
  );
}

function old(seconds) {
  return seconds < 1 ? `${(1000 * seconds).toFixed(0)} ms` : `${seconds.toFixed(1)} s`;
}

export function drawMessages(list, messages) {
  list.replaceChildren(
    ...messages.toReversed().map(([time, level, text]) => {
      const row = document.createElement("li");
      row.className = LEVELS[level] ?? "error";
      const when = document.createElement("time");
      when.textContent = new Date(1000 * time).toLocaleTimeString("en-GB");
      row.append(when, text);
      return row;
    }),
  );
}
