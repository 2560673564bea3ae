// Points of a face in a picture, by ONNX Runtime alone:
//   c++ -std=c++17 -I INCLUDE align.cpp -L LIB -lonnxruntime -o align
//   ./align picture.onnx photo.ppm 178 89 275 177 [roll in radians]
// picture.onnx comes from `canthus export swift --with-crop`; a photo becomes a PPM by `convert photo.jpg photo.ppm`.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb;  // row by row from the top
};

Picture read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  int64_t most = 0;
  Picture picture;
  file >> kind >> picture.width >> picture.height >> most;
  if (!file || kind != "P6" || most != 255 || picture.width < 2 || picture.height < 2) {
    throw std::runtime_error("got " + path + ", want a PPM file (P6, 255)");
  }
  file.get();  // one white space
  picture.rgb.resize(3 * picture.width * picture.height);
  file.read(reinterpret_cast<char*>(picture.rgb.data()), picture.rgb.size());
  if (!file) throw std::runtime_error("got " + path + ", which is cut off, want it whole");
  return picture;
}

int main(int count, char** words) try {
  if (count != 7 && count != 8) throw std::runtime_error("want: align picture.onnx photo.ppm x0 y0 x1 y1 [roll]");
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "canthus");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
#ifdef _WIN32
  const std::string narrow = words[1];
  Ort::Session session(environment, std::wstring(narrow.begin(), narrow.end()).c_str(), options);
#else
  Ort::Session session(environment, words[1], options);
#endif

  Ort::AllocatorWithDefaultOptions allocator;
  Ort::ModelMetadata about = session.GetModelMetadata();
  for (const char* key : {"name", "version", "licence"}) {  // also: inputs, outputs, crop, landmarks, card (JSON)
    auto value = about.LookupCustomMetadataMapAllocated(key, allocator);
    std::cout << "# " << key << ": " << (value ? value.get() : "") << "\n";
  }

  Picture picture = read_ppm(words[2]);
  std::array<float, 4> box{};  // tight around the 68 landmarks: x0, y0, x1, y1; 0 is the centre of the first pixel
  for (int k = 0; k < 4; k++) box[k] = std::strtof(words[3 + k], nullptr);
  std::array<float, 1> roll{count == 8 ? std::strtof(words[7], nullptr) : 0.0f};

  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::array<int64_t, 3> picture_shape{picture.height, picture.width, 3};
  const std::array<int64_t, 1> box_shape{4}, roll_shape{1};
  std::vector<Ort::Value> inputs;
  inputs.push_back(Ort::Value::CreateTensor<uint8_t>(memory, picture.rgb.data(), picture.rgb.size(),
                                                     picture_shape.data(), picture_shape.size()));
  inputs.push_back(Ort::Value::CreateTensor<float>(memory, box.data(), box.size(), box_shape.data(), 1));
  inputs.push_back(Ort::Value::CreateTensor<float>(memory, roll.data(), roll.size(), roll_shape.data(), 1));

  const std::array<const char*, 3> given{"picture", "box", "roll"};
  const std::array<const char*, 4> wanted{"xyz", "sigma", "visible", "rotation"};
  auto answers = session.Run(Ort::RunOptions{nullptr}, given.data(), inputs.data(), inputs.size(), wanted.data(),
                             wanted.size());
  const float *xyz = answers[0].GetTensorData<float>(), *sigma = answers[1].GetTensorData<float>();
  const float *visible = answers[2].GetTensorData<float>(), *rotation = answers[3].GetTensorData<float>();

  std::printf("# rotation:");
  for (int k = 0; k < 9; k++) std::printf(" %.4f", rotation[k]);
  std::printf("\n# x y z, standard deviation (pixels), probability that it is seen\n");
  const int64_t points = answers[0].GetTensorTypeAndShapeInfo().GetShape()[0];
  for (int64_t k = 0; k < points; k++) {
    std::printf("%.3f %.3f %.3f %.3f %.3f\n", xyz[3 * k], xyz[3 * k + 1], xyz[3 * k + 2], sigma[k], visible[k]);
  }
  return 0;
} catch (const std::exception& error) {
  std::cerr << "align: " << error.what() << "\n";
  return 1;
}
