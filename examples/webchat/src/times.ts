const hour = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long" });
const date = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });

/** 14:02 */
export const time = (ms: number): string => hour.format(ms);

const midnight = (ms: number) => new Date(ms).setHours(0, 0, 0, 0);

/** Today, Yesterday, Monday, or a date. */
export function day(ms: number, now: number): string {
  const days = Math.round((midnight(now) - midnight(ms)) / 86_400_000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days < 7 ? weekday.format(ms) : date.format(ms);
}

/** When somebody was here last. */
export function lastSeen(ms: number, now: number): string {
  if (ms === 0) return "not seen yet";
  const d = day(ms, now);
  return `last seen ${d === "Today" ? "at " + time(ms) : d.toLowerCase() + " at " + time(ms)}`;
}
