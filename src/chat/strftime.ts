const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/** The directives of C's strftime that chat templates use, in the C locale and in local time; others stay as they are. */
export function strftime(format: string, date: Date): string {
  const pad = (value: number): string => String(value).padStart(2, "0");
  const directives: Readonly<Record<string, string>> = {
    Y: String(date.getFullYear()),
    y: pad(date.getFullYear() % 100),
    m: pad(date.getMonth() + 1),
    d: pad(date.getDate()),
    B: MONTHS[date.getMonth()] ?? "",
    b: MONTHS[date.getMonth()]?.slice(0, 3) ?? "",
    A: DAYS[date.getDay()] ?? "",
    a: DAYS[date.getDay()]?.slice(0, 3) ?? "",
    H: pad(date.getHours()),
    I: pad(date.getHours() % 12 || 12),
    p: date.getHours() < 12 ? "AM" : "PM",
    M: pad(date.getMinutes()),
    S: pad(date.getSeconds()),
    "%": "%",
  };
  return format.replace(/%(.)/g, (whole, directive: string) => directives[directive] ?? whole);
}
