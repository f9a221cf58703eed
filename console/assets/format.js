// Numbers as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const time = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "2-digit" });

export const none = "–";

export function count(n) {
  return n === null || n === undefined || Number.isNaN(n) ? none : whole.format(n);
}

// short is for axes and small places: 1.2K, 3M.
export function short(n) {
  if (n === null || n === undefined) return none;
  return Math.abs(n) < 10 && n % 1 !== 0 ? n.toFixed(1) : compact.format(n);
}

// rate is a number per second: small ones with a digit after the point.
export function rate(n) {
  if (n === null || n === undefined) return none;
  if (n !== 0 && n < 10) return n.toFixed(1);
  return whole.format(n);
}

export function bytes(n) {
  if (n === null || n === undefined) return none;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  for (; Math.abs(n) >= 1024 && i < units.length - 1; i++) n /= 1024;
  return (i === 0 || n >= 100 ? n.toFixed(0) : n.toFixed(1)) + " " + units[i];
}

// span is a short time in seconds: 85 µs, 1.4 ms, 230 ms, 2.1 s.
export function span(s) {
  if (s === null || s === undefined) return none;
  if (s === 0) return "0 ms";
  if (s < 0.001) return (s * 1e6).toFixed(0) + " µs";
  if (s < 0.01) return (s * 1e3).toFixed(2) + " ms";
  if (s < 0.1) return (s * 1e3).toFixed(1) + " ms";
  if (s < 1) return (s * 1e3).toFixed(0) + " ms";
  return s.toFixed(s < 10 ? 2 : 1) + " s";
}

// ago is a long time in seconds: 42 s, 5 min, 3 h 20 min, 4 d 2 h.
export function duration(s) {
  s = Math.max(0, Math.floor(s));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
}

export function percent(share) {
  return share === null || share === undefined ? none : (share * 100).toFixed(share < 0.0995 ? 1 : 0) + " %";
}

export function clock(ms) {
  return time.format(ms);
}

// moment is a time with its day, unless it is today.
export function moment(ms) {
  if (!ms) return none;
  const d = new Date(ms);
  return d.toDateString() === new Date().toDateString() ? time.format(d) : day.format(d) + ", " + time.format(d);
}
