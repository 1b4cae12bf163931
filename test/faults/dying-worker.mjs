// Preloaded: the first worker of the process exits when it is to read a tape.
import { isMainThread, threadId } from "node:worker_threads";
import { native } from "../../dist/native/binding.js";

if (!isMainThread && threadId === 1) native().readTape = () => process.exit(3);
