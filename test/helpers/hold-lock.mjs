/** Takes the lock of the store in the given directory, says so, and keeps it until its input ends. */
import { lockStore } from "../../dist/decompose/lock.js";

const unlock = await lockStore(process.argv[2]);
console.log("locked");
process.stdin.resume();
process.stdin.on("end", unlock);
