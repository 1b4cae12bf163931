declare module "safetensors" {
  class SafeTensor {
    constructor(file: Uint8Array);
    getTensor(name: string): Uint8Array;
  }
  const exports: { SafeTensor: typeof SafeTensor };
  export default exports;
}
